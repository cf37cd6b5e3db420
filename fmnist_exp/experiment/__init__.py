"""One experiment from start to end: resolve, build, fit, evaluate and log it, alone or as a trial of a search.

Code that only a search needs belongs in `tuning`.
"""
