"""A soak: searches run while a seeded adversary kills, fills, cuts, delays and flips; then everything is checked."""
