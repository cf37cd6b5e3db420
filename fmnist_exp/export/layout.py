"""The layout of a model's folder: exactly what `packaging.save` writes, nothing of which runs code when it is loaded.

Earlier releases wrote the same files, without `checksums.json` until a model was registered.
"""

import functools
import hashlib
import json
import re
import zipfile
from pathlib import Path

import yaml

from fmnist_exp import serving
from fmnist_exp.data.formats import CLASS_NAMES
from fmnist_exp.errors import WorkError
from fmnist_exp.export import checksums
from fmnist_exp.export.inspection import texts

KERAS_MODEL, ONNX_MODEL = "data/model.keras", "data/model.onnx"
DESCRIPTION = "MLmodel"
PREDICTOR = f"{serving.__name__}.predictor"  # it is not imported here, because that takes ONNX Runtime
CODE = "code/fmnist_exp/__init__.py", "code/fmnist_exp/serving/__init__.py", "code/fmnist_exp/serving/predictor.py"
ENVIRONMENT = "conda.yaml", "python_env.yaml", "requirements.txt"
EXAMPLES = "input_example.json", "serving_input_example.json"
TEXTS = {"data/classes.txt": "\n".join(CLASS_NAMES), "data/keras_module.txt": "keras"}  # file → content
FILES = frozenset({DESCRIPTION, *CODE, *ENVIRONMENT, *EXAMPLES, *TEXTS, KERAS_MODEL, ONNX_MODEL, checksums.FILE})
OPTIONAL = {checksums.FILE}
LONGEST = 2**16  # bytes of a text file; MLmodel has about 2,000
RECORDED = Path(__file__).with_name("code.sha256")  # digests of the copies that any release wrote, as sha256sum writes

# fields of MLmodel: those that must have these values, and those that differ from model to model
FLAVORS: dict[str, dict[str, object]] = {
    "keras": {"data": "data", "save_exported_model": False},
    "python_function": {
        "loader_module": PREDICTOR,
        "data": "data",
        "code": "code",
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
    },
}
VERSIONS = {"keras": {"keras_backend", "keras_version"}, "python_function": {"python_version"}}
PLAIN_VERSION = re.compile(r"[\w.+-]{1,40}")
FIELDS = {
    *("artifact_path", "is_signature_from_type_hint", "mlflow_version", "model_id", "model_size_bytes"),
    *("model_uuid", "prompts", "run_id", "saved_input_example_info", "signature", "type_hint_from_example"),
    "utc_time_created",
}

# what a saved network may consist of: layers and operations of Keras' own
NETWORKS = {("keras", "Sequential"), ("keras", "DTypePolicy"), ("keras.src.models.functional", "Functional")}
PARTS = {f"keras.{part}" for part in ("initializers", "layers", "regularizers")}
OPERATIONS = "keras.src.ops."
# layers that contain or call code, that read a file which their configuration names, or whose memory cannot be seen
# from outside: they compute more than their result, or repeat a network that they contain
UNSAFE_LAYERS = {
    *("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"),
    *("StringLookup", "IntegerLookup", "TextVectorization", "MelSpectrogram", "STFTSpectrogram"),
    *("Attention", "AdditiveAttention", "MultiHeadAttention", "GroupQueryAttention"),
    *("TimeDistributed", "Bidirectional", "Wrapper", "RNN", "StackedRNNCells", "SimpleRNN", "LSTM", "GRU"),
    *("SimpleRNNCell", "LSTMCell", "GRUCell", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "SpectralNormalization"),
}


def check(folder: Path) -> None:
    """Raise WorkError unless the folder has exactly the files of `packaging.save` and MLmodel describes them.

    The network in the Keras file is left to `check_network`, which reads more than a page of text.
    """
    found = checksums.plain_files(folder)
    for name in sorted(found - FILES):
        raise WorkError(f"it has the file {name}, which fmnist-exp does not write")
    for name in sorted(FILES - OPTIONAL - found):
        raise WorkError(f"it has no file {name}")
    for name in sorted(FILES - {KERAS_MODEL, ONNX_MODEL, *EXAMPLES}):
        if name in found and (folder / name).stat().st_size > LONGEST:
            raise WorkError(f"its file {name} has more than {LONGEST:,} bytes")
    for name, expected in TEXTS.items():
        if (folder / name).read_bytes().strip() != expected.encode():
            raise WorkError(f"its file {name} is not the one that fmnist-exp writes")
    _check_description(folder / DESCRIPTION)


def _check_description(file: Path) -> None:
    """Check that MLmodel names the loader, the code and the files that `packaging.save` names, and nothing else."""
    try:
        content = file.read_bytes()
        texts.check_yaml(content)  # no aliases, with which a short text grows while it is read
        found = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise WorkError(f"its file {file.name} is not valid YAML") from error
    except WorkError as error:
        raise WorkError(f"its file {file.name} cannot be read: {error}") from error
    flavors = found.pop("flavors", None) if isinstance(found, dict) else None
    if not isinstance(flavors, dict):
        raise WorkError(f"its file {file.name} describes no model")
    wrong = [name for name, value in found.items() if name not in FIELDS or not _is_flat(value, depth=1)]
    wrong += [flavor for flavor in flavors.keys() | FLAVORS.keys() if flavor not in FLAVORS or flavor not in flavors]
    for flavor, expected in FLAVORS.items():
        fields = flavors[flavor] if isinstance(flavors.get(flavor), dict) else {}
        known = {name: fields.get(name) for name in VERSIONS[flavor]}
        wrong += [name for name, text in known.items() if not (isinstance(text, str) and PLAIN_VERSION.fullmatch(text))]
        rest = {name: value for name, value in fields.items() if name not in known}
        wrong += [name for name in rest.keys() | expected.keys() if rest.get(name) != expected.get(name)]
    if wrong:
        shown = ", ".join(sorted(str(name)[:40] for name in wrong)[:5])
        raise WorkError(f"its file {file.name} is not as fmnist-exp writes it: {shown}")


def _is_flat(value: object, depth: int) -> bool:
    """Return True if a value of MLmodel is a text, a number or the like, or a mapping of `depth` levels of them."""
    if isinstance(value, dict):
        return depth > 0 and all(_is_flat(part, depth - 1) for part in value.values())
    return not isinstance(value, list | tuple | set)


def check_network(folder: Path) -> None:
    """Raise WorkError if a part of the Keras network is not a stock layer, or is one that can contain code."""
    try:
        with zipfile.ZipFile(folder / KERAS_MODEL) as archive:
            config = json.loads(archive.read("config.json"))
        if isinstance(config, dict):
            config.pop("compile_config", None)  # of an ensemble; it is never read
        _check_part(config)
    except (zipfile.BadZipFile, OSError, KeyError, ValueError, EOFError, RecursionError) as error:
        raise WorkError(f"its file {KERAS_MODEL} is damaged") from error


def _check_part(config: object) -> None:
    """Check everything in a configuration that Keras saved and would make an object of."""
    if isinstance(config, list):
        for part in config:
            _check_part(part)
    elif isinstance(config, dict):
        name, module = config.get("class_name"), str(config.get("module"))
        if "class_name" in config and (name != "__keras_tensor__" or "module" in config):
            stock = (module, name) in NETWORKS or module in PARTS or module.startswith(OPERATIONS)
            stock = stock and config.get("registered_name") in (None, name)
            if not stock or name in UNSAFE_LAYERS or name == "function" or str(name).startswith("_"):
                shown = str(name)[:40]
                raise WorkError(f"it uses {shown}, which is not a stock Keras layer, so loading it is not safe")
        for part in config.values():
            _check_part(part)


def foreign_code(folder: Path) -> list[str]:
    """Return the names of the model's copied modules that no release of fmnist-exp wrote.

    This package never runs them, but MLflow does when it loads the model.
    """
    return [name for name in CODE if hashlib.sha256((folder / name).read_bytes()).hexdigest() not in _known_code(name)]


@functools.cache
def _known_code(name: str) -> frozenset[str]:
    """Return the digests of this release's copy and of those of earlier releases."""
    package = Path(str(serving.__file__))
    copies = b"", package.read_bytes(), package.with_name("predictor.py").read_bytes()
    own = dict(zip(CODE, copies, strict=True))
    recorded = [line.split() for line in RECORDED.read_text(encoding="utf-8").splitlines()]
    earlier = {digest for digest, path in recorded if f"code/{path}" == name}
    return frozenset({hashlib.sha256(own[name]).hexdigest(), *earlier})
