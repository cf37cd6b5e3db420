"""A model whose files would take gigabytes or minutes to read is refused in one sentence, within 256 MiB and 5 s."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mlflow.models import Model
from support import bombs, graph_bombs

from fmnist_exp import models
from fmnist_exp.backend import seeds
from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.export import packaging
from fmnist_exp.export.inspection import graphs, inspect
from fmnist_exp.models import ensemble, tta
from fmnist_exp.serving import predictor

MEMORY = 256  # MiB
SECONDS = 5  # of processor time
# inspects a folder in a fresh process, and says what its only child and it itself have used
MEASURE = """
import json, resource, sys
from pathlib import Path
from fmnist_exp.export.inspection import inspect
try:
    reason = inspect(Path(sys.argv[1]), "the model")
except Exception as error:
    reason = f"{type(error).__name__}: {error}"
child = resource.getrusage(resource.RUSAGE_CHILDREN)
peak = child.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # bytes
status = Path("/proc/self/status")  # getrusage would say what the process that started this one has used
lines = status.read_text().splitlines() if status.exists() else ["VmHWM: 0 kB"]
own = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
print(json.dumps([reason, peak / 2**20, child.ru_utime + child.ru_stime, own / 2**10]))
"""

ARCHIVES: dict[str, bombs.Sample] = {
    "3 GiB of config.json in 3 MB": partial(bombs.zip_bomb, entry="config.json", size=3 * bombs.GIB),
    "1 GiB of weights that are said to be 1 KiB": partial(
        bombs.zip_bomb, entry=bombs.WEIGHTS, size=bombs.GIB, said=1024
    ),
    "an entry ../evil": lambda folder: bombs.write_keras(folder, {"../../evil": b"x"}),
    "20,000 entries": bombs.many_entries,
    "an entry twice": bombs.entry_twice,
    "JSON 100,000 deep": lambda folder: bombs.write_keras(folder, {"config.json": b"[" * 100_000}),
    "4 million lists in JSON": lambda folder: bombs.write_keras(folder, {"config.json": b"[" + b"[]," * 2_700_000}),
    "60 MB of JSON": lambda folder: bombs.write_keras(folder, {"config.json": b" " * 60_000_000}),
    "half of the archive": partial(bombs.cut, name="model.keras", share=0.5),
    "no byte of the archive": partial(bombs.cut, name="model.keras", share=0),
    "no archive": lambda folder: (folder / "data" / "model.keras").write_bytes(os.urandom(10_000)),
}
WEIGHTS = {
    "4 GiB of zeros in pieces": bombs.zeros_in_pieces,
    "4 GiB without a byte": bombs.nothing_stored,
    "2^40 numbers": partial(bombs.nothing_stored, size=2**40),
    "a virtual dataset": bombs.virtual,
    "a dataset in another file": lambda group: group.create_dataset(
        "0", (bombs.GIB,), "f4", external=[("/dev/zero", 0, 4 * bombs.GIB)]
    ),
    "an external link": lambda group: group.__setitem__("0", bombs.h5py.ExternalLink("/etc/passwd", "/")),
    "a soft link": lambda group: group.__setitem__("0", bombs.h5py.SoftLink("/layers")),
    "a circle of groups": bombs.circle,
    "groups 3,000 deep": bombs.deep_groups,
    "texts instead of numbers": lambda group: group.create_dataset("0", data=["a" * 1000]),
    "an attribute of 64 kB": bombs.large_attribute,
}
GRAPHS: dict[str, bombs.Sample] = {
    "ConstantOfShape 6 GB": graph_bombs.large_by("ConstantOfShape", ["shape"], {"shape": np.array([1_500_000_000])}),
    "Expand 6 GB": graph_bombs.large_by("Expand", ["one", "shape"], {"one": np.float32(1), "shape": [1_500_000_000]}),
    "Tile 6 GB": graph_bombs.large_by(
        "Tile", ["one", "shape"], {"one": np.ones(1, np.float32), "shape": [1_500_000_000]}
    ),
    "Range 6 GB": graph_bombs.large_by(
        "Range", ["from", "to", "by"], dict(zip(("from", "to", "by"), np.float32([0, 1.5e9, 1]), strict=True))
    ),
    "Pad 6 GB": graph_bombs.large_by("Pad", ["one", "by"], {"one": np.ones(1, np.float32), "by": [0, 1_500_000_000]}),
    "Resize 6 GB": graph_bombs.large_by(
        "Resize", ["one", "", "", "to"], {"one": np.ones((1, 1, 1, 1), np.float32), "to": [1, 1, 40_000, 40_000]}
    ),
    "OneHot 5 GB": graph_bombs.large_by(
        "OneHot", ["of", "depth", "values"], {"of": np.zeros(1, int), "depth": 10**9, "values": np.float32([0, 1])}
    ),
    "a sum of a row and a column": graph_bombs.large_by(
        "Add", ["row", "column"], {"row": np.ones((1, 40_000), np.float32), "column": np.ones((40_000, 1), np.float32)}
    ),
    "a hundred results of 1 MiB": graph_bombs.many_results,
    "a size that the pixels say": graph_bombs.as_large_as_the_pixels_say,
    "If": partial(graph_bombs.subgraph, operator="If"),
    "Loop without an end": partial(graph_bombs.subgraph, operator="Loop"),
    "weights in /dev/zero": partial(graph_bombs.weights_elsewhere, path="/dev/zero"),
    "weights in ../../MLmodel": partial(graph_bombs.weights_elsewhere, path="../MLmodel"),
    "weights with too many rows": partial(graph_bombs.weights_of_another_size, dims=(10**6, 10**3)),
    "2^60 weights": partial(graph_bombs.weights_of_another_size, dims=(2**30, 2**30)),
    "weights of negative size": partial(graph_bombs.weights_of_another_size, dims=(-784, -32)),
    "another domain": graph_bombs.another_domain,
    "functions that call functions": graph_bombs.function,
    "a size that is zero for 1 and 256 images": graph_bombs.size_of_the_batch,
    "an operator that needs more than its result": graph_bombs.attention,
    "1.5 million operators in 3 MB": graph_bombs.empty_nodes,
    "graphs 5,000 deep": graph_bombs.graphs_in_graphs,
    "half of the ONNX file": partial(bombs.cut, name="model.onnx", share=0.5),
    "no ONNX file": lambda folder: (folder / "data" / "model.onnx").write_bytes(os.urandom(10_000)),
    "a hole of 3 GiB": lambda folder: os.truncate(folder / "data" / "model.onnx", 3 * bombs.GIB),
    "a hole of 1 TiB": lambda folder: os.truncate(folder / "data" / "model.onnx", 2**40),
}
TEXTS: dict[str, bombs.Sample] = {
    "aliases of aliases in MLmodel": lambda folder: (folder / "MLmodel").write_text(bombs.laughs()),
    "an alias of itself in conda.yaml": lambda folder: (folder / "conda.yaml").write_text("&a [*a]"),
    "MLmodel 30,000 deep": lambda folder: (folder / "MLmodel").write_text("[" * 30_000),
    "MLmodel of 10 MB": lambda folder: (folder / "MLmodel").write_text("a: b\n" * 2_000_000),
    "checksums 100,000 deep": lambda folder: (folder / "checksums.json").write_text("[" * 100_000),
    "an input example of 1 GiB": lambda folder: os.truncate(folder / "input_example.json", bombs.GIB),
    "the name of a class with 1 MB": lambda folder: (folder / "data" / "classes.txt").write_text("x" * 1_000_000),
    "too few names": lambda folder: (folder / "data" / "classes.txt").write_text("x\n" * 9),
    "a pipe, which waits for ever": lambda folder: os.mkfifo(folder / "MLmodel.json"),
    "a link to /dev/zero": lambda folder: (folder / "data" / "more.txt").symlink_to("/dev/zero"),
    "10,000 files": lambda folder: [(folder / "data" / f"{number}.txt").touch() for number in range(10_000)],
}
SAMPLES = ARCHIVES | {name: partial(bombs.hdf5, fill=fill) for name, fill in WEIGHTS.items()} | GRAPHS | TEXTS


@pytest.fixture
def folder(registered, tmp_path) -> Path:
    return shutil.copytree(registered.files, tmp_path / "model")


@pytest.mark.attack("a bomb in a model", entry="inspect, which every loading of a model calls", result="refused")
@pytest.mark.parametrize("sample", SAMPLES)
def test_a_bomb_is_refused_within_256_mib_and_5_s(folder, sample):
    SAMPLES[sample](folder)
    done = subprocess.run([sys.executable, "-c", MEASURE, folder], capture_output=True, text=True, check=True)
    reason, memory, seconds, own = json.loads(done.stdout)
    assert reason, "the model was accepted"
    assert reason.startswith("WorkError: the model cannot be loaded: ")
    assert len(reason) < 400
    assert "\n" not in reason
    assert memory < MEMORY
    assert seconds < SECONDS
    assert own < 64, "the parent read something itself"


CONFIGS = {family: {"family": family} for family in models.FAMILIES}
CONFIGS["residual"] = {"family": "cnn", "widths": (4, 6), "residual": True, "batch_norm": True, "dropout": 0.2}
CONFIGS["pooled"] = {"family": "resnet", "widths": (4, 6), "pooling": "average", "head_widths": (8,)}


@pytest.mark.parametrize("config", CONFIGS)
def test_every_family_passes(config, small, tmp_path):
    seeds.prepare(0, "float32")
    model = models.build(ModelConfig(**CONFIGS[config]))
    packaging.save(tmp_path / "model", Model(), model, small.validation.images[:8])
    inspect(tmp_path / "model", "the model")


def test_combined_networks_pass(small, tmp_path):
    seeds.prepare(0, "float32")
    config = ModelConfig(family="cnn", widths=(4, 6), averaging="flip_shift")
    members = [tta.with_tta(models.build(config), config), models.build(ModelConfig(family="mlp", widths=(8,)))]
    packaging.save(tmp_path / "model", Model(), ensemble.average(members), small.validation.images[:8])
    inspect(tmp_path / "model", "the model")


def test_a_large_model_passes(small, tmp_path):
    """The limits grow with the files: 20 million weights are 80 MB in each of two files."""
    seeds.prepare(0, "float32")
    model = models.build(ModelConfig(family="mlp", widths=(4096, 4096)))
    packaging.save(tmp_path / "model", Model(), model, small.validation.images[:8])
    inspect(tmp_path / "model", "the model")


def test_the_sizes_are_those_of_the_predictors_batch():
    assert (graphs.BATCH, graphs.SIDE) == (predictor.BATCH, predictor.SIDE)
