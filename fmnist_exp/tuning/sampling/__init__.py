"""Which setting a search tries next: samplers, pruners, and settings taken over from an earlier study."""
