"""Benchmarks of fitting: throughput, whole fits, the start of a command, and the profile of a step."""
