"""Loading a model reports to nobody, names every package, and works where only MLflow is installed."""

import os
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import requests

from fmnist_exp.export import requirements


@pytest.fixture
def folder(registered, tmp_path):
    return shutil.copytree(registered.files, tmp_path / "model")


def test_loading_reports_to_nobody(folder, tmp_path):
    """ONNX Runtime's telemetry would leave an identifier of the machine in the home folder."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    home = tmp_path / "home"
    home.mkdir()
    load = "import sys; from fmnist_exp.serving.predictor import _load_pyfunc; _load_pyfunc(sys.argv[1])"
    subprocess.run([sys.executable, "-c", load, folder / "data"], env=kept | {"HOME": str(home)}, check=True)
    assert list(home.iterdir()) == []


def test_locked_names_every_package_once():
    found = requirements.locked(("pytest",))
    assert [line.split("==")[0] for line in found] == ["iniconfig", "packaging", "pluggy", "pygments", "pytest"]


@pytest.mark.slow
def test_mlflow_models_serve_on_a_machine_that_has_only_mlflow_and_uv(registered, tmp_path, small):
    """A fresh environment with MLflow and uv, an empty home, and none of this project's files."""
    import mlflow

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = tmp_path / "environment"
    subprocess.run(["uv", "venv", "--python", sys.executable, environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run(["uv", "pip", "install", "--python", python, f"mlflow=={mlflow.__version__}", "uv"], check=True)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    path = f"{environment / 'bin'}:{os.environ['PATH']}"
    (tmp_path / "home").mkdir()
    command = [python.parent / "mlflow", "models", "serve", "-m", "models:/fashion-mnist@champion"]
    with subprocess.Popen(
        [*command, "--env-manager", "uv", "--port", str(port)],
        cwd=registered.folder,
        env=kept | {"PATH": path, "HOME": str(tmp_path / "home"), "MLFLOW_TRACKING_URI": registered.uri},
        start_new_session=True,
    ) as process:
        try:
            images = small.test.images[:3]
            answer = wait_for_answer(f"http://127.0.0.1:{port}/invocations", images, process)
        finally:
            os.killpg(process.pid, 15)
    table = mlflow.pyfunc.load_model(str(registered.files)).predict(images)
    assert [row["name"] for row in answer] == list(table["name"])
    assert np.allclose([row["probability"] for row in answer], table["probability"], atol=1e-5)


def wait_for_answer(address: str, images: np.ndarray, process: subprocess.Popen[bytes]) -> list[dict[str, object]]:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, "mlflow models serve ended"
        try:
            response = requests.post(address, json={"inputs": images.tolist()}, timeout=30)
        except requests.ConnectionError:
            time.sleep(0.5)
            continue
        assert response.ok, response.text
        return response.json()["predictions"]
    raise AssertionError("no answer within 300 s")
