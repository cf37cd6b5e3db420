"""The adversary's plan: which fault comes when, and for how long. A seed determines it completely."""

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of faults, with the words that the report uses."""

    WORKER = "SIGKILL of a worker"
    DRIVER = "SIGKILL of the driver; the same command is started again"
    SERVER = "SIGKILL of the tracking server, which is started again later"
    DATABASE = "SIGKILL of PostgreSQL, which is started again later"
    SESSIONS = "every connection of PostgreSQL ended"
    SERVER_DISK = "the disk of the artifacts filled, and freed later"
    LOCAL_DISK = "the disk of the spool and of temporary files filled, and freed later"
    CALLS = "calls to the server lost, cut, repeated or refused"
    DELAY = "all calls to the server delayed"
    AWAY = "the connection to the server refused for a while"
    FLIP = "a bit flipped in a record that was not sent yet"


@dataclass(frozen=True)
class Rate:
    """The frequency and the duration of a fault."""

    per_hour: int
    shortest: float = 0.0  # seconds; 0 is a fault of one moment
    longest: float = 0.0


RATES = {
    Kind.WORKER: Rate(48),
    Kind.DRIVER: Rate(5),  # between two of them a driver lives long enough to show whether it grows
    Kind.SERVER: Rate(16, 2, 30),
    Kind.DATABASE: Rate(10, 1, 15),
    Kind.SESSIONS: Rate(8),
    Kind.SERVER_DISK: Rate(10, 5, 25),
    Kind.LOCAL_DISK: Rate(5, 3, 8),
    Kind.CALLS: Rate(150),
    Kind.DELAY: Rate(20, 3, 15),
    Kind.AWAY: Rate(16, 3, 40),
    Kind.FLIP: Rate(30),
}


@dataclass(frozen=True, order=True)
class Planned:
    """One fault."""

    at: float  # seconds after the beginning
    kind: Kind
    seconds: float  # how long it lasts; 0 for a fault of one moment
    luck: int  # seed of the choices that depend on the moment: which worker, which call, which bit


def plan(seed: int, minutes: float) -> list[Planned]:
    """Return the faults of a soak in their order: each kind at its rate, and at least once.

    The time is divided into equal parts, one for each fault of a kind. A fault begins in the first half of its part and
    ends within the part, so that faults of one kind never overlap, whereas those of different kinds do.
    """
    faults = []
    for kind, rate in RATES.items():
        drawn = random.Random(f"{seed} {kind}")
        count = max(1, round(rate.per_hour * minutes / 60))
        part = minutes * 60 / count
        for number in range(count):
            at = (number + drawn.uniform(0.05, 0.5)) * part
            seconds = min(drawn.uniform(rate.shortest, rate.longest), 0.45 * part)
            faults.append(Planned(at, kind, seconds, drawn.getrandbits(32)))
    return sorted(faults)
