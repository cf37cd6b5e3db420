"""Finding F14: no two streams of random numbers coincide, whatever seed, epoch and batch they belong to."""

import itertools

import numpy as np
import pytest

from fmnist_exp.data.streams import Stream, generator

Generators = dict[tuple[object, ...], np.random.Generator]
SEEDS = (0, 1, 2, 3, 7, 2**31, 2**32 - 1)


def ours() -> Generators:
    """Return the generators of every stream, for several seeds and for no, one and two keys."""
    keys = [(), *((e,) for e in range(8)), *itertools.product(range(8), range(12))]
    return {(stream, seed, *key): generator(stream, seed, *key) for stream in Stream for seed in SEEDS for key in keys}


def earlier() -> Generators:
    """Return those of earlier releases: of the split, of the epochs' orders, and of the batches' augmentation."""
    generators: Generators = {}
    for seed in SEEDS:
        generators["split", seed] = np.random.default_rng(seed)
        for epoch in range(8):
            generators["order", seed, epoch] = np.random.default_rng((seed, epoch))
            generators |= {
                ("batch", seed, epoch, index): np.random.default_rng((seed, epoch, index)) for index in range(12)
            }
    return generators


def coinciding(generators: Generators) -> list[list[tuple[object, ...]]]:
    """Return the groups of generators whose first two numbers of 64 bits are the same."""
    first: dict[bytes, list[tuple[object, ...]]] = {}
    for name, random in generators.items():
        first.setdefault(random.bytes(16), []).append(name)
    return [names for names in first.values() if len(names) > 1]


def test_no_two_streams_coincide():
    assert coinciding(ours()) == []


def test_those_of_earlier_releases_did():
    assert ["split", 0] in [list(names[0]) for names in coinciding(earlier())]
    assert [("order", 7, 3), ("batch", 7, 3, 0)] in coinciding(earlier())


@pytest.mark.parametrize("stream", Stream)
def test_a_stream_repeats(stream):
    one, again = generator(stream, 5, 2).bytes(64), generator(stream, 5, 2).bytes(64)
    assert one == again


def test_no_stream_is_numpys_own_of_the_same_seed():
    plain: Generators = {("plain", seed): np.random.default_rng(seed) for seed in SEEDS}
    spawned: Generators = {
        ("spawned", seed, key): np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(key,)))
        for seed in SEEDS
        for key in range(8)
        if key not in list(Stream)
    }
    assert coinciding(ours() | plain | spawned) == []
