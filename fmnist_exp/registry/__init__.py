"""Logged models become versions, and versions become champions: lineage, gate, smoke test, evaluation and model card.

Training does not belong here, and neither does answering requests, which is the work of `serving`.
"""
