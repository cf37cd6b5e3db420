"""The adversary: it carries out a plan, counts what it really did, and mends everything at the end."""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.plan import Kind, Planned
from benchmarks.chaos.searches import Searches
from benchmarks.chaos.services import Database, Disk, Service
from benchmarks.line import Fault, Line, Rule

CALLS = (  # which calls to the server a fault hits, as patterns of "METHOD /path"
    ".*",
    "POST .*/runs/create",
    "POST .*/runs/log-batch",
    "POST .*/runs/update",
    "POST .*/(log-inputs|outputs)",
    "(POST|PATCH) .*/logged-models.*",
    "PUT .*/mlflow-artifacts/.*",
    "POST .*/(model-versions|registered-models)/.*",
)
SUFFERED = (  # by a call
    *(Fault.RESET, Fault.LOSE_REQUEST, Fault.DROP, Fault.CUT),
    *(Fault.TWICE, Fault.UNAVAILABLE, Fault.GATEWAY, Fault.HANG, Fault.SILENT),
)
SILENT_SECONDS = 30  # of a call that gets no answer


@dataclass
class Stage:
    """Everything that the adversary can harm."""

    database: Database
    server: Service
    line: Line
    searches: Searches
    server_disk: Disk
    local_disk: Disk
    spool: Path


@dataclass
class Adversary:
    """Carries out a plan.

    A kill waits for something to kill, and a flip for a record that was not sent yet; both are given up when the
    time is over. What is counted has happened.
    """

    stage: Stage
    plan: list[Planned]
    counts: Counter[Kind] = field(default_factory=Counter)
    _begun: float = field(default_factory=time.monotonic)
    _waiting: list[Planned] = field(default_factory=list)
    _ends: list[tuple[float, Kind, Callable[[], None]]] = field(default_factory=list)
    _rules: list[Rule] = field(default_factory=list)
    _delay: Rule | None = None
    _flipped: dict[Path, str] = field(default_factory=dict)  # folder of the spool → which of its two copies is harmed

    def tick(self) -> None:
        """Begin and end the faults whose time has come."""
        now = time.monotonic() - self._begun
        while self.plan and self.plan[0].at <= now:
            self._waiting.append(self.plan.pop(0))
        for fault in list(self._waiting):
            if self._inject(fault):
                self._waiting.remove(fault)
                self.counts[fault.kind] += fault.kind is not Kind.CALLS  # those are counted when they meet a call
                if end := self._end_of(fault.kind):
                    self._ends.append((now + fault.seconds, fault.kind, end))
        for entry in [entry for entry in self._ends if entry[0] <= now]:
            self._ends.remove(entry)
            entry[2]()
        self._count_rules()

    @property
    def calls(self) -> Counter[str]:
        """Return how many calls to the server suffered, by kind."""
        return Counter(rule.fault.value for rule in self._rules if rule.happened.is_set())

    def mend(self) -> None:
        """End every fault: everything is up again, and the disks are free."""
        self.plan.clear()
        self._waiting.clear()
        for _, _, end in self._ends:
            end()
        self._ends.clear()
        self._count_rules()
        self.stage.line.clear()

    def _count_rules(self) -> None:
        self.counts[Kind.CALLS] = sum(rule.happened.is_set() for rule in self._rules)
        self.stage.line.record.clear()  # it would grow for hours

    def _inject(self, fault: Planned) -> bool:
        """Begin a fault; return False if there is nothing to harm at the moment."""
        stage, luck = self.stage, random.Random(fault.luck)
        match fault.kind:
            case Kind.WORKER:
                return stage.searches.kill_worker(fault.luck)
            case Kind.DRIVER:
                return stage.searches.kill_driver()
            case Kind.SERVER:
                stage.server.kill()
            case Kind.DATABASE:
                stage.database.kill()
            case Kind.SESSIONS:
                return stage.database.end_sessions() > 0
            case Kind.SERVER_DISK:
                stage.server_disk.fill()
            case Kind.LOCAL_DISK:
                stage.local_disk.fill()
            case Kind.CALLS:
                rule = stage.line.inject(luck.choice(SUFFERED), luck.choice(CALLS), seconds=SILENT_SECONDS)
                self._rules.append(rule)
            case Kind.DELAY:
                self._delay = stage.line.inject(Fault.DELAY, "", times=None, seconds=luck.uniform(0.2, 3))
            case Kind.AWAY:
                stage.line.close()
            case Kind.FLIP:
                return self._flip(luck)
        return True

    def _end_of(self, kind: Kind) -> Callable[[], None] | None:
        stage = self.stage
        return {
            Kind.SERVER: stage.server.start,
            Kind.DATABASE: stage.database.start,
            Kind.SERVER_DISK: stage.server_disk.free,
            Kind.LOCAL_DISK: stage.local_disk.free,
            Kind.DELAY: self._end_delay,
            Kind.AWAY: stage.line.open,
        }.get(kind)

    def _end_delay(self) -> None:
        if self._delay is not None:
            self._delay.times = self._delay.met  # the rule has had its calls

    def _flip(self, luck: random.Random) -> bool:
        """Flip one bit of one copy of a record that was not sent yet. Both copies of a folder are never harmed."""
        for folder in sorted(self.stage.spool.glob("*")):
            copy = self._flipped.get(folder, luck.choice(("records", "records.copy")))
            if flip(folder, copy, luck):
                self._flipped[folder] = copy
                return True
        return False


def flip(folder: Path, name: str, luck: random.Random) -> bool:
    """Flip a bit in the head or in an unsent record of one of a folder's two files; return False if all are sent.

    Line 0 of the file is the head, which is needed as long as a record is unsent. Line n is record n, and the file
    `sent` has a line for each of the first records that the store has answered.
    """
    try:
        journal = folder / "sent"
        sent = journal.read_bytes().count(b"\n") if journal.exists() else 0
        lines = (folder / name).read_bytes().splitlines(keepends=True)
        unsent = [number for number in range(sent + 1, len(lines)) if lines[number].endswith(b"\n")]
        if not unsent:
            return False
        chosen = luck.choice([0, *unsent])
        start = sum(map(len, lines[:chosen]))
        place = start + luck.randrange(len(lines[chosen]) - 1)
        with (folder / name).open("r+b", buffering=0) as file:
            file.seek(place)
            bit = bytes([file.read(1)[0] ^ (1 << luck.randrange(8))])
            file.seek(place)
            file.write(bit)
    except OSError:  # the folder was sent and deleted meanwhile
        return False
    return True
