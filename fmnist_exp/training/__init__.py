"""Compile and fit a network: optimizers, callbacks, weight averages, the state of a fit, and the choice of a precision.

This package knows neither MLflow nor Optuna: whoever wants to watch a fit passes in a callback.
"""
