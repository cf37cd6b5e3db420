"""The choice of the setting that a search tries next.

Samplers, pruners, and the settings that a search takes over from an earlier study belong here. The search space itself
and the objectives belong in `tuning`.
"""
