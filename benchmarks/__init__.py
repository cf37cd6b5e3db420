"""Measurements that take minutes or hours, each run from the repository's root as `python -m benchmarks.NAME`.

A benchmark prints its numbers with n and spread and writes nothing into the package. `peers/` has the programs that
the platform is compared with. Tests of what the benchmarks compute are in tests/benchmarks/.
"""
