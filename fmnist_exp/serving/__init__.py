"""A registered version behind HTTP: the protocol, the limits, the page to try the model, and the predictor.

Modules here import only `errors` from this package: a copy of `predictor` travels with every logged model. The caller
passes in the files of a version; code that finds them belongs in `registry`.
"""
