"""The images: verified uint8 arrays from source files, their seeded split, and augmented batches.

Everything that happens to images before they reach a network belongs here. Corrupted copies for the robustness test
belong in `evaluation`.
"""
