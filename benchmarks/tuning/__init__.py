"""Benchmarks of searches: a race against other searches, the cost of a trial, workers, and killed processes."""
