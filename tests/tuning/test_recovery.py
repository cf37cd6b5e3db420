"""A search finds again what a killed driver left, whatever the study is called."""

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from support import services, standin

from fmnist_exp.errors import RequestError
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tuning import recovery
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.record import TrialRecord


@pytest.mark.parametrize("name", ["it's", 'a "study"', 'it\'s a "study" with `all` of 100 % \\ and _', "a\nline"])
def test_a_study_with_any_quotes_in_its_name_is_finalised(shared_store, name):
    client, config = store.connect(), standin.configure(1)
    study = studies.open_study(config, name, "sqlite:///studies.db")
    tags: dict[str, str] = {Tag.STUDY: name}
    left = runs.start_run(client, "tune", "left", config.name, more_tags=tags)
    other = runs.start_run(client, "tune", "other", config.name, more_tags={Tag.STUDY: name.replace("a", "b") + "c"})
    with runs.closing(runs.start_run(client, "tune", "next", config.name, more_tags=tags)) as parent:
        recovery.finalise(study, parent, "its driver was killed")
        assert client.get_run(left.id).info.status == "KILLED"
        assert client.get_run(parent.id).info.status == client.get_run(other.id).info.status == "RUNNING"
    other.close()


def test_a_store_that_goes_away_is_not_taken_for_another_store(shared_store, monkeypatch):
    study = studies.open_study(standin.configure(1), "elsewhere", "sqlite:///studies.db")
    TrialRecord.write(study.ask(), run_id="0" * 32)
    with pytest.raises(RequestError, match="use the store that it was made with"):
        recovery.check(study, store.connect())
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MlflowException, match="Connection refused"):
        recovery.check(study, mlflow.MlflowClient(f"http://127.0.0.1:{services.free_port()}"))
