"""Benchmarks of tracking: the cost of an epoch and of a run, the time to finish a run, and an outage of the server."""
