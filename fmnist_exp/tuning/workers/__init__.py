"""Workers that run trials: in this process, in a pool of local processes, or on a Dask cluster, under one study lock.

Only modules of this package import Dask. `tuning.driver` decides what a trial's result means for the study.
"""
