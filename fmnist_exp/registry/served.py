"""A registered version as the server takes it; apart from `versions`, because it imports ONNX Runtime."""

from fmnist_exp.registry import versions
from fmnist_exp.serving.model import ServedModel
from fmnist_exp.tracking import store


def load(uri: str) -> ServedModel:
    """Return the version that `uri` names, with its files checked. Raises RequestError or WorkError."""
    version = versions.find_uri(store.connect(), uri)
    return ServedModel(versions.files(version), f"{version.name} version {version.version}")
