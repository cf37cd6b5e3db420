"""The experiment file: its schema, the schema of a search, and how files and overrides become a checked configuration.

Every default, range and unit of a field is written here and nowhere else. Checks that need images, a tracking store or
a network belong in `experiment.resolve`.
"""
