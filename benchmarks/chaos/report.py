"""The report of a soak: what was injected, how the commands ended, what was checked, and which processes grew."""

import argparse
import collections
import datetime
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks import reporting
from benchmarks.chaos.checks import Row, no
from benchmarks.chaos.plan import Kind
from benchmarks.chaos.sampling import LIFE_SECONDS, Life
from benchmarks.chaos.searches import Session

FAULTS_PER_HOUR = 200
MEANING = {0: "done", 1: "the work failed", 2: "refused at the start", -9: "killed by the adversary"}


@dataclass
class Soak:
    """The results of a soak."""

    given: argparse.Namespace
    begin: float  # seconds since the epoch
    end: float
    counts: Counter[Kind]
    calls: Counter[str]  # what happened to calls
    sessions: Sequence[Session]
    rows: list[Row] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def all_rows(self) -> Iterator[Row]:
        """Yield all checks."""
        per_hour = self.counts.total() / (self.given.minutes / 60)
        yield Row(f"at least {FAULTS_PER_HOUR} faults per hour", per_hour >= FAULTS_PER_HOUR, True, f"{per_hour:.0f}")
        yield no("kinds of faults that never happened", [kind.value for kind in Kind if not self.counts[kind]])
        yield no("commands that printed a traceback", [s.study for s in self.sessions if "Traceback (most" in s.text])
        unknown = [
            f"{session.study}: exit code {session.code}" for session in self.sessions if session.code not in MEANING
        ]
        yield no("commands with an unknown exit code", unknown)
        yield from self.rows
        yield no("processes whose memory or open files grew", [_life(life) for life in self.lives if not life.is_flat])

    def text(self) -> str:
        """Return the report in Markdown."""
        begin = datetime.datetime.fromtimestamp(self.begin, datetime.UTC)
        lines = [
            f"## Seed {self.given.seed}: {self.given.minutes:g} minutes of faults",
            "",
            f"`python -m benchmarks.chaos --minutes {self.given.minutes:g} --seed {self.given.seed}` on"
            f" {reporting.processor()}, {begin:%Y-%m-%d %H:%M} UTC; {(self.end - self.begin) / 60:.0f} minutes in all.",
            "",
            *_table(("injected", "times"), [(kind.value, self.counts[kind]) for kind in Kind]),
            f"| all | {self.counts.total()} |",
            "",
            *_table(("what happened to calls", "times"), sorted(self.calls.items())),
            "",
            *_table(("how the commands ended", "times"), self._ends()),
            "",
            *_table(("checked", "found", "expected"), [_cells(row) for row in self.all_rows()]),
            "",
        ]
        lines += [line for note in self.notes for line in (note, "")]
        if self.lives:
            columns = ("longest lives", "pid", "minutes", "MiB, first → third quarter", "open files")
            lines += [*_table(columns, [_grown(life) for life in self._longest()]), ""]
        else:
            lines += [f"No process lived for {LIFE_SECONDS:.0f} s, so that memory was not judged.", ""]
        return "\n".join(lines)

    def _ends(self) -> list[tuple[str, int]]:
        """Return how often commands ended in which way; of those that failed, with the last line that they printed."""
        ends: Counter[str] = collections.Counter()
        for session in self.sessions:
            reason = ""
            if session.code not in (0, -9):
                last = (session.text.strip().splitlines() or [""])[-1]
                reason = f": {re.sub(r'[0-9a-f]{32}|chaos-[0-9]+|[0-9]{2,}', '…', last)[:300]}"
            ends[MEANING.get(session.code, f"exit code {session.code}") + reason.replace("|", "/")] += 1
        return ends.most_common()

    def _longest(self) -> list[Life]:
        """Return the three longest lives of each role."""
        ordered = sorted(self.lives, key=lambda life: -life.seconds)
        roles: dict[str, list[Life]] = collections.defaultdict(list)
        for life in ordered:
            roles[life.role].append(life)
        return [life for group in roles.values() for life in group[:3]]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    rule = "|" + "---|" * len(head)
    return [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(map(str, row))} |" for row in rows)]


def _cells(row: Row) -> tuple[str, str, str]:
    examples = " ".join(row.examples.split()).replace("|", "/")
    wrong = "" if row.holds else f" **wrong** {examples}"
    return row.name, f"{row.found}{wrong}", str(row.expected)


def _grown(life: Life) -> tuple[object, ...]:
    before, after, files_before, files_after = life.growth()
    return (
        life.role,
        life.pid,
        f"{life.seconds / 60:.1f}",
        f"{before:.0f} → {after:.0f}",
        f"{files_before:.0f} → {files_after:.0f}",
    )


def _life(life: Life) -> str:
    return " ".join(map(str, _grown(life)))
