"""A benchmark of searches on learning curves that a surrogate predicts: LCBench, in virtual time."""
