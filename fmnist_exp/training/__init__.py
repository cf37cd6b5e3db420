"""Compile and fit a network: optimizers, callbacks, weight averages, the state of a fit, and the choice of a precision.

This package knows neither MLflow nor Optuna: code that wants to watch a fit passes in an `events.FitCallback`.
"""
