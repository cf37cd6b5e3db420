"""Tests of the soak: the adversary's plan, the faults that need no server, and the judgement of memory."""

import argparse
import collections
import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.chaos import __main__ as soak
from benchmarks.chaos import adversary, services
from benchmarks.chaos.checks import Row, no
from benchmarks.chaos.plan import RATES, Kind, plan
from benchmarks.chaos.report import FAULTS_PER_HOUR, Soak
from benchmarks.chaos.sampling import PAUSE_SECONDS, Life
from benchmarks.chaos.searches import Session

PROJECT = Path(__file__).parents[2]


def test_a_seed_determines_the_plan():
    assert plan(0, 10) == plan(0, 10)
    assert plan(0, 10) != plan(1, 10)


@pytest.mark.parametrize("seed", range(3))
def test_an_hour_has_enough_faults_of_every_kind_and_none_overlaps_its_like(seed):
    faults = plan(seed, 60)
    assert len(faults) >= 1.4 * FAULTS_PER_HOUR, "some may find nothing to harm"
    assert faults == sorted(faults)
    for kind, rate in RATES.items():
        mine = [fault for fault in faults if fault.kind is kind]
        assert len(mine) == rate.per_hour
        for fault, following in itertools.pairwise(mine):
            assert fault.at + fault.seconds < following.at
        assert all(fault.seconds <= rate.longest for fault in mine)
    assert faults[-1].at + faults[-1].seconds < 3600


def test_a_short_soak_has_every_kind():
    assert {fault.kind for fault in plan(0, 1)} == set(Kind)


def test_a_flip_changes_one_bit_of_a_record_that_was_not_sent(tmp_path):
    lines = [f'{{"number": {number}, "body": "{"x" * 30}"}}\n'.encode() for number in range(5)]
    before = b"".join(lines) + b"torn"
    for seed in range(50):
        (tmp_path / "records").write_bytes(before)
        (tmp_path / "sent").write_text("sent\n" * 2)
        assert adversary.flip(tmp_path, "records", random.Random(seed))
        after = (tmp_path / "records").read_bytes()
        changed = [place for place, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        assert len(changed) == 1
        place = changed[0]
        assert (before[place] ^ after[place]).bit_count() == 1
        assert place < len(lines[0]) or sum(map(len, lines[:3])) <= place < sum(map(len, lines)), "the head, or unsent"
    (tmp_path / "sent").write_text("sent\n" * 4)
    assert not adversary.flip(tmp_path, "records", random.Random(0))
    assert not adversary.flip(tmp_path / "gone", "records", random.Random(0))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_is_filled_and_freed(tmp_path):
    disk = services.Disk(tmp_path / "disk", 1)
    if not disk.is_mounted:
        pytest.skip("may not mount")
    try:
        (disk.folder / "kept").write_bytes(b"kept")
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (disk.folder / "more").write_bytes(bytes(5000))
        disk.free()
        (disk.folder / "more").write_bytes(bytes(5000))
        assert (disk.folder / "kept").read_bytes() == b"kept"
    finally:
        disk.close()


def life(mib, files) -> Life:
    return Life("driver", 1, tuple(mib), tuple(files))


def test_growth_is_judged_after_the_warm_up():
    count = int(900 / PAUSE_SECONDS)
    warm = int(120 / PAUSE_SECONDS)
    flat = [20] * count
    assert life([*range(100, 100 + 10 * warm, 10), *[400] * (count - warm)], flat).is_flat
    assert not life([400 + number for number in range(count)], flat).is_flat
    assert not life([400] * count, range(20, 20 + count)).is_flat


def test_the_report_shows_what_is_wrong(capsys):
    given = argparse.Namespace(seed=3, minutes=60.0)
    counts = collections.Counter({kind: 20 for kind in Kind})
    sessions = [
        Session("chaos-0", -9, ""),
        Session("chaos-0", 1, "…\nthe disk is full\n"),
        Session("chaos-0", 0, ""),
        Session("chaos-1", 1, "Traceback (most recent call last):\nOops\n"),
    ]
    made = Soak(given, 0.0, 3700.0, counts, collections.Counter({"lost": 4}), sessions, [Row("good", 1, 1)])
    made.rows.append(no("models that are missing", ["m-1", "m-2"]))
    text = made.text()
    assert "| models that are missing | 2 **wrong** m-1; m-2 | 0 |" in text
    assert "| the work failed: the disk is full | 1 |" in text
    assert [row.name for row in made.all_rows() if not row.holds] == [
        "commands that printed a traceback",
        "models that are missing",
    ]


def test_the_options():
    assert vars(soak.parser().parse_args(["--minutes", "2.5", "--seed", "4"])) == {
        "minutes": 2.5,
        "seed": 4,
        "trials": 24,
        "workers": 2,
        "images": 2000,
        "report": "",
        "keep": "",
    }


@pytest.mark.slow
@pytest.mark.skipif(not services.TOOLS.joinpath("initdb").exists(), reason="PostgreSQL is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount small disks")
def test_a_minute_of_faults():
    options = ["--minutes", "1", "--trials", "4", "--images", "800"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", *options], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
