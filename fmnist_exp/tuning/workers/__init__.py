"""Workers that run trials: in this process, in a pool of local processes, or on a Dask cluster, under one study lock.

Only modules of this package import Dask. What a trial's result means to the study is decided by `tuning.driver`.
"""
