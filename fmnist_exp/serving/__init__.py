"""A registered version behind HTTP: the protocol, the limits, the page to try the model, and the predictor.

Modules here import nothing of this package but the errors: a copy of `predictor` travels with every logged model.
Finding a version and its files does not belong here; the caller hands them over.
"""
