"""One-epoch top-K search without tracking.

The first half of the time fits the first setting, then random ones, for one epoch each. The second half fits the best
of them again, for all epochs and the best first, until the time is over.
"""

import contextlib
import random

from benchmarks.peers import network

task = network.task()
numbers = random.Random(task.seed)
tried: list[tuple[float, network.Setting]] = []
with contextlib.suppress(TimeoutError):
    while task.left > task.seconds / 2:
        setting = network.draw(numbers, task.how) if tried else task.how.first
        tried.append((network.fit(setting, task, len(tried), epochs=1), setting))
    ranked = sorted(tried, key=lambda pair: -pair[0])
    for trial, (_, setting) in enumerate(ranked, len(tried)):
        network.fit(setting, task, trial)
