"""`learning_rate="auto"`: what limits a rate, and the metric that it is measured in."""
