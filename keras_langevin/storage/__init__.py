"""Posterior samples in memory or in a folder that survives a crash."""
