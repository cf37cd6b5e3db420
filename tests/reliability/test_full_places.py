"""The disk of the store, the spool, the temporary files or the cache is full under the commands that need a version."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from support import disks
from support.disks import Disk
from support.stable import Done, Stable

NAME = "fashion-mnist"
SMALL = ["--model.widths", "[8]", "--training.epochs", "1", "--training.batch_size", "50"]


@dataclass(frozen=True)
class Site:
    """A store with two versions, on a small disk, and small disks for everything else that commands write."""

    commands: Stable
    disks: dict[str, Disk]  # of the store, the spool, the temporary files and the cache
    client: mlflow.MlflowClient
    tiny: Path
    images: str  # folder of the images
    home: Path

    def run(self, *words: str) -> Done:
        """Run a command to its end; a server is stopped when it answers."""
        places = {name: str(disk.folder) for name, disk in self.disks.items()}
        variables = {"MLFLOW_TRACKING_URI": self.client.tracking_uri, "FMNIST_EXP_SEND_SECONDS": "2"}
        variables |= {"TMPDIR": places["tmp"], "FMNIST_EXP_CACHE": places["cache"]}
        variables |= {"FMNIST_EXP_SPOOL": f"{places['spool']}/spool"}
        running = self.commands.start(*words, folder=self.home, **variables)
        if words[0] == "serve":
            running.until(lambda text: "http://" in text)
            if running.alive():
                running.send(signal.SIGINT)
        return running.wait()

    def check_nothing_is_half(self) -> None:
        """No run is in progress, every model is whole, and nothing is left of what was being written."""
        assert {run.info.status for run in self.client.search_runs(["0"])} <= {"FINISHED", "FAILED", "KILLED"}
        assert {str(model.status) for model in self.client.search_logged_models(["0"])} == {"READY"}
        assert list(self.disks["tmp"].folder.iterdir()) == []
        assert not (self.disks["spool"].folder / "spool").exists()
        assert list(self.disks["cache"].folder.glob(".*")) == []


@pytest.fixture(scope="module")
def made(tmp_path_factory, commands, tiny, folder, new_database) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        found = {name: stack.enter_context(disks.small(home / name)) for name in ("store", "spool", "tmp", "cache")}
        uri = new_database(found["store"].folder, str(found["store"].folder / "mlruns"))
        site = Site(commands, found, mlflow.MlflowClient(uri), tiny, folder, home)
        for rate in ("0.001", "0.002"):
            options = ["--register", "true", "--training.learning_rate", rate]
            done = site.run("train", "--experiment", str(tiny), *options)
            assert done.code == 0, done.printed
        yield site


@pytest.fixture
def site(made) -> Iterator[Site]:
    """The site with version 1 as the champion, and with room on all disks."""
    made.client.set_registered_model_alias(NAME, "champion", "1")
    yield made
    for disk in made.disks.values():
        disk.make_room()


def evaluate(site: Site) -> list[str]:
    return ["evaluate", "--data.source", site.images]


def promote(site: Site) -> list[str]:
    return ["promote", "--version", "2", "--force", "true", "--data.source", site.images]


def serve(site: Site) -> list[str]:
    return ["serve", "--port", "0"]


def ensemble(site: Site) -> list[str]:
    members = f"models:/{NAME}/1,models:/{NAME}/2"
    return ["ensemble", "--members", members, "--register", "false", "--data.source", site.images]


def reproduce(site: Site) -> list[str]:
    return ["reproduce", site.client.get_model_version(NAME, "1").run_id, "--force", "true"]


def sync(site: Site) -> list[str]:
    done = site.run("train", "--experiment", str(site.tiny), "--offline", "true")
    assert done.code == 0, done.printed
    return ["sync"]


def clean(site: Site) -> list[str]:
    run = site.client.create_run("0", tags={"fmnist.kind": "train"})
    site.client.create_logged_model("0", "model", run.info.run_id)
    site.client.set_terminated(run.info.run_id)
    return ["clean", "--yes", "true"]


def tune(site: Site) -> list[str]:
    return ["tune", "--experiment", str(site.tiny), "--workers", "1"]


def mlp(site: Site) -> list[str]:
    return ["mlp", *SMALL, "--data.source", site.images]


def baseline(site: Site) -> list[str]:
    return ["baseline", *SMALL, "--data.source", site.images]


ENDED_BY = {  # the place whose disk is full → the commands that cannot do without it
    "store": [evaluate, promote, sync, clean],
    "tmp": [evaluate, promote, serve, ensemble, reproduce, sync, tune, mlp, baseline],
}


@pytest.mark.slow
@pytest.mark.parametrize(("place", "prepare"), [(place, each) for place, those in ENDED_BY.items() for each in those])
def test_a_full_disk_ends_the_command_with_one_sentence(site, place, prepare):
    words = prepare(site)
    site.disks[place].fill(20_000 if place == "tmp" else 0)  # without any room, Python takes another temporary folder
    done = site.run(*words)
    site.disks[place].make_room()
    assert done.code == 1, done.printed
    assert done.error.startswith("the disk is full")
    assert "make room" in done.error
    assert site.client.get_model_version_by_alias(NAME, "champion").version == 1
    done = site.run(*words)
    assert done.code == 0, done.printed
    site.check_nothing_is_half()


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [tune, baseline, ensemble, reproduce])
def test_a_full_store_gets_the_run_later(site, prepare):
    words = prepare(site)
    site.disks["store"].fill()
    done = site.run(*words)
    site.disks["store"].make_room()
    assert done.code == 0, done.printed
    assert "send them with: fmnist-exp sync" in done.printed
    done = site.run("sync")
    assert done.code == 0, done.printed
    assert site.client.search_runs(["0"])[0].info.status == "FINISHED"
    site.check_nothing_is_half()


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [evaluate, promote, ensemble, reproduce])
def test_a_full_spool_and_a_full_cache_give_warnings(site, prepare):
    words = prepare(site)
    for entry in site.disks["cache"].folder.iterdir():
        entry.unlink()
    site.disks["cache"].fill()
    site.disks["spool"].fill()
    done = site.run(*words)
    site.disks["cache"].make_room()
    site.disks["spool"].make_room()
    assert done.code == 0, done.printed
    assert "the images are not cached" in done.printed
    assert "what the run logs is kept in memory" in done.printed
    assert site.client.search_runs(["0"])[0].info.status == "FINISHED"
    site.check_nothing_is_half()


@pytest.mark.slow
def test_a_version_is_served_from_a_full_store(site):
    site.disks["store"].fill()
    done = site.run(*serve(site))
    site.disks["store"].make_room()
    assert (done.code, "version 1: http://" in done.printed) == (0, True), done.printed


def test_a_full_disk_leaves_no_half_of_a_certificate(commands, tmp_path):
    with disks.small(tmp_path / "disk") as disk:
        words = ["certificates", "--file", str(disk.folder / "dask.yaml")]
        disk.fill()
        done = commands.run(*words)
        assert done.code == 1, done.printed
        assert done.error.startswith("the disk is full")
        disk.make_room()
        assert commands.run(*words).code == 0
