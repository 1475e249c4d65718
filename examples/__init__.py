"""Ten scripts, and under them the studies and benchmarks, which run as modules from the root of
the repository: `python -m examples.studies.momentum.regression`."""
