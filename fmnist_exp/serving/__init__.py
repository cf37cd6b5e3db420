"""A registered version behind HTTP: the protocol, the limits, the page to try the model, and the predictor.

Modules here import only `errors` from this package: every logged model contains a copy of `predictor`. The caller
passes in the files of a version; code that finds them belongs in `registry`.
"""
