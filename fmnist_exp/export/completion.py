"""Complete the folder of a model when the tracking store gets it: the ids that the store gave, checksums, signature.

The network and everything else in the folder are written before, by `packaging`, so that a fit needs no store.
"""

from pathlib import Path

import yaml

from fmnist_exp.errors import WorkError
from fmnist_exp.export import checksums, signing

MLMODEL = "MLmodel"


def complete(folder: Path, model_id: str, run_id: str, location: str, signer: str = "") -> tuple[str, str]:
    """Write the model's ids into its folder, and return what vouches for its files. A second call changes nothing.

    Args:
        folder: the model's folder.
        model_id: id of the logged model.
        run_id: id of the run that logged it.
        location: address of its artifacts.
        signer: public key that the model must be signed with; empty if it needs no signature.

    Returns:
        The SHA-256 of `checksums.json`, which lists the SHA-256 of every other file; and the signature of this digest
        together with the model's id, or an empty text without a signing key.

    Raises:
        WorkError: this process does not have the key that the model was to be signed with.
    """
    if signer and not signing.is_signer(signer):
        raise WorkError(
            f"model {model_id} was to be signed with another key than this process has; set {signing.SIGNING_KEY} to"
            " the key of the process that trained it"
        )
    file = folder / MLMODEL
    known = yaml.safe_load(file.read_text(encoding="utf-8"))
    known |= {"model_id": model_id, "model_uuid": model_id, "run_id": run_id, "artifact_path": location}
    file.write_text(yaml.safe_dump(known, default_flow_style=False, allow_unicode=True), encoding="utf-8")
    digest = checksums.write(folder)
    return digest, signing.sign(model_id, digest)
