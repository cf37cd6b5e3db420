"""A registered version behind HTTP.

Modules here import nothing of ours but the errors: a copy of `predictor` travels with every logged model.
"""
