"""The other Keras backend: a run on JAX, in a process of its own, whose model is as good on TensorFlow and ONNX."""

import json
import os
import subprocess
import sys

import keras
import mlflow
import numpy as np
import pytest

from fmnist_exp.backend import inference, loading
from fmnist_exp.config import files
from fmnist_exp.models import tta
from fmnist_exp.registry import lineage
from fmnist_exp.tracking import store

THREADS = """
import os, sys
from pathlib import Path
import keras
from fmnist_exp.backend import inference, layers, seeds, setup
from fmnist_exp.training import fit
setup.start(threads=3)
seeds.prepare(0, "float32")
if keras.backend.backend() == "jax":
    import jax
    jax.jit(lambda x: x @ x)(jax.numpy.ones((1000, 1000))).block_until_ready()
    assert "tensorflow" not in sys.modules
    names = [Path(f"/proc/self/task/{thread}/comm").read_text() for thread in os.listdir("/proc/self/task")]
    print(len([name for name in names if "XLAEigen" in name]))
else:
    import tensorflow as tf
    tf.linalg.matmul(tf.ones((1000, 1000)), tf.ones((1000, 1000)))
    print(tf.config.threading.get_intra_op_parallelism_threads())
"""
CODE = """
import json
import keras
import numpy as np
from fmnist_exp import models
from fmnist_exp.backend import inference, layers, seeds, setup
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.experiment import run as experiments
from fmnist_exp.models import tta
from fmnist_exp.registry import private_copy
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.training import fit as fitting

arrays = np.load("small.npz")
splits = [Split(name, arrays[f"{name}_images"], arrays[f"{name}_labels"]) for name in ("train", "validation", "test")]
fields = {
    "model.family": "cnn", "model.widths": [4, 8], "model.batch_norm": True, "model.dropout": 0.1,
    "training.epochs": 2, "training.batch_size": 50, "training.learning_rate": 1e-2, "training.steps_per_execution": 3,
    "training.ema": 0.5, "training.checkpoint": True, "augmentation.horizontal_flip": True,
    "training.precision": "float32",
}
config = files.override(ExperimentConfig(), fields)
client = store.connect()
with runs.closing(runs.start_run(client, "train", "jax", "jax")) as run:
    outcome = experiments.run_experiment(config, FashionMNIST(*splits, "test"), run, score_test=True)
with private_copy.opened(client, outcome.model_id) as copy:
    answers = inference.predict(copy.keras(), splits[2].images)

changes = {"model.widths": [8, 16, 24], "model.averaging": "flip_shift"}
changes |= {"training.epochs": 1, "training.batch_size": 100, "training.precision": "bfloat16"}
fast = files.load("cnn_fast", changes)
seeds.prepare(0, fast.training.precision)
model = layers.accelerate(models.build(fast.model))
fitted = fitting.fit(model, fast, FashionMNIST(*splits, "test"))
setup.set_precision("float32")
plain = models.build(fast.model)
plain.set_weights(model.get_weights())
plain.save("fast.keras")
whole = tta.with_tta(plain, fast.model)
np.save("fast.npy", inference.predict(whole, splits[0].images))  # 600: two batches, and a shorter one

print(json.dumps({
    "fast_losses": [epoch.metrics["train_loss"] for epoch in fitted.epochs],
    "backend": keras.backend.backend(),
    "run_id": run.id,
    "model_id": outcome.model_id,
    "losses": [epoch.metrics["train_loss"] for epoch in outcome.fit.epochs],
    "val_accuracy": outcome.fit.best.metrics["val_accuracy"],
    "scored": [outcome.validation.accuracy, outcome.test.accuracy],
    "answers": answers.tolist(),
}))
"""


@pytest.fixture(scope="module")
def printed(shared_store, small) -> dict:
    """Return what a process printed that fitted, evaluated, logged and loaded a model on JAX."""
    splits = {f"{s.name}_{part}": getattr(s, part) for s in vars(small).values() if hasattr(s, "images")
              for part in ("images", "labels")}  # fmt: skip
    np.savez("small.npz", **splits)
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_it_ran_on_jax_and_learned(printed):
    assert printed["backend"] == "jax"
    assert printed["losses"][1] < printed["losses"][0]
    assert printed["scored"][0] == pytest.approx(printed["val_accuracy"])  # what was fitted is what was logged
    assert min(printed["scored"]) > 0.3


def test_its_run_is_whole(printed):
    run = store.connect().get_run(printed["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_accuracy"] == printed["scored"][1]
    assert printed["model_id"] in {output.model_id for output in run.outputs.model_outputs}  # beside the checkpoints


def test_its_model_answers_the_same_everywhere(printed, small):
    expected = np.array(printed["answers"])
    model = lineage.find(store.connect(), f"runs:/{printed['run_id']}").load_keras()
    on_tensorflow = inference.predict(model, small.test.images)
    assert np.allclose(on_tensorflow, expected, atol=1e-4)
    table = mlflow.pyfunc.load_model(f"models:/{printed['model_id']}").predict(small.test.images)
    assert np.allclose(table[[f"p{label}" for label in range(10)]], expected, atol=1e-4)


def test_the_recipe_of_cnn_fast_runs_there_too(printed, small):
    """Muon, one cycle, smoothed labels, bfloat16, residuals, pooling first; answers averaged over six views."""
    assert len(printed["fast_losses"]) == 1
    assert np.isfinite(printed["fast_losses"]).all()
    changes = {"model.widths": [8, 16, 24], "model.averaging": "flip_shift"}
    whole = tta.with_tta(keras.models.load_model("fast.keras"), files.load("cnn_fast", changes).model)
    assert np.allclose(inference.predict(whole, small.train.images), np.load("fast.npy"), atol=1e-4)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
@pytest.mark.parametrize("backend", loading.BACKENDS)
def test_start_limits_the_threads_of_the_backend(backend):
    settings = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", THREADS], env=settings, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3"]
