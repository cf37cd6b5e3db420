"""Source files become verified uint8 arrays, a seeded split, and augmented batches.

Everything about images before they reach a network belongs here. Corrupted copies for the robustness test belong in
`evaluation`.
"""
