"""One-epoch top-K: half of the time goes into settings at random, one epoch each; then the best get all epochs.

They are fitted anew, the best first. K is as many as the second half has time for. No tracking.
"""

import contextlib
import random

from benchmarks.peers import network

asked = network.task()
numbers = random.Random(asked.seed)
tried: list[tuple[float, network.Setting]] = []
with contextlib.suppress(TimeoutError):
    while asked.left > asked.seconds / 2:
        setting = network.draw(numbers)
        tried.append((network.fit(setting, asked, len(tried), epochs=1), setting))
    ranked = sorted(tried, key=lambda one: -one[0])
    for trial, (_, setting) in enumerate(ranked, len(tried)):
        network.fit(setting, asked, trial)
