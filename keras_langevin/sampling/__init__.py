"""The callbacks that collect samples while `fit` trains, and chains of such runs."""
