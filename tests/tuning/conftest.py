"""A study with a driver whose workers a test plays."""

import math
import time
from collections.abc import Iterator

import pytest
from support import standin
from support.scripts import Clock, Script, Stage
from support.searches import STORAGE

from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.callback import SearchCallback
from fmnist_exp.tuning.driver import Driver
from fmnist_exp.tuning.session import Search
from fmnist_exp.tuning.space import SearchSpace


@pytest.fixture
def stage(shared_store, data, request) -> Iterator[Stage]:
    """A new study of stand-in trials; its driver works with the script that a test writes."""
    config, clock = standin.configure(1), Clock()
    client = store.connect()
    study = studies.open_study(config, request.node.name, STORAGE)
    with runs.closing(runs.start_run(client, "tune", "driver", config.name)) as parent:

        def drive(
            script: Script,
            seconds: float,
            n_trials: int = 1,
            limit: float = math.inf,
            is_timed: bool = False,
            **fields: object,
        ) -> None:
            """Search for `seconds` of the time limit of a search; the workers are asked to time their steps or not."""
            timeout = {"search__timeout": limit / 60} if math.isfinite(limit) else {}
            space, now = SearchSpace(standin.configure(n_trials, **timeout, **fields)), time.monotonic()
            search = Search(space, data, study, parent, now + seconds, clock.monotonic, end=now + limit)
            callback = SearchCallback()
            callback.on_notice = notices.append  # type: ignore[method-assign]
            Driver(search, script, None if is_timed else standin.objective, callback, None).work()

        notices: list[str] = []
        yield Stage(study, parent, drive, clock, notices)
