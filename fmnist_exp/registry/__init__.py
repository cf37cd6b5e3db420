"""Registered versions and champions: their lineage, gate, smoke test, evaluation and model card.

Training belongs in `experiment`, and answering requests belongs in `serving`.
"""
