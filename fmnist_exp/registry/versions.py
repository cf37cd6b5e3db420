"""The versions of the registered model: register, find, verify, tag and describe them."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.evaluation import intervals
from fmnist_exp.export import checksums, signing
from fmnist_exp.registry import private_copy
from fmnist_exp.registry.private_copy import PrivateCopy, Voucher
from fmnist_exp.registry.rendering import render
from fmnist_exp.tracking import transport
from fmnist_exp.tracking.inputs import image_count
from fmnist_exp.tracking.names import VersionTag
from fmnist_exp.tracking.redact import without_secrets
from fmnist_exp.tracking.spool import ids

NAME = "fashion-mnist"
CHALLENGER, CHAMPION = "challenger", "champion"
LOGGED_MODEL = re.compile(r"\bm-[0-9a-f]{32}\b")  # MLflow's ids of logged models, in any address
SOURCE = re.compile(r"models:/(m-[0-9a-f]{32})")  # of every version that any release has registered
# how earlier releases described the registered model, and how the descriptions of their versions start
EARLIER_DESCRIPTION = "Fashion-MNIST: uint8 images (N, 28, 28) to ten classes."
EARLIER_START = "Model card: "


@dataclass(frozen=True)
class Registration:
    """The number of a version, whether it is the champion now, and the reason."""

    version: str
    champion: bool
    reason: str


def register(client: MlflowClient, model_id: str, run_id: str, tags: Mapping[str, object]) -> ModelVersion:
    """Register a logged model as a version with the alias `challenger`, unless it is a version already."""
    version, *others = _of_model(client, model_id) or _create(client, model_id, run_id, tags)
    for twin in others:  # of a request that was carried out twice on its way to a server
        if twin.tags.get(VersionTag.SPOOL_ID) == version.tags.get(VersionTag.SPOOL_ID, NAME):
            with transport.unless_gone():
                client.delete_model_version(NAME, twin.version)
    if not version.description:  # also if the answer to an earlier call was lost
        describe(client, version, _accuracies(client, run_id, version.tags))
    client.set_registered_model_alias(NAME, CHALLENGER, version.version)
    return version


def uri(version: ModelVersion) -> str:
    """Return the address of a version."""
    return f"models:/{NAME}/{version.version}"


def logged_model(version: ModelVersion) -> str | None:
    """Return the id of the version's logged model, if it has one: its `model_id`, or the id in its source."""
    found = LOGGED_MODEL.search(str(version.source))
    return str(version.model_id) if version.model_id else found and found[0]


@contextmanager
def opened(client: MlflowClient, version: ModelVersion) -> Iterator[PrivateCopy]:
    """Yield a verified copy of a version's files, which is deleted when the block ends. Raises WorkError."""
    name = f"version {version.version}"
    source = SOURCE.fullmatch(str(version.source))
    if not source:
        raise WorkError(f"{name} cannot be loaded: its source is no logged model, so fmnist-exp did not register it")
    voucher = Voucher(version.tags.get(VersionTag.SHA256, ""), version.tags.get(VersionTag.SIGNATURE, ""), NAME)
    with private_copy.opened(client, source[1], name, voucher) as copy:
        yield copy


def sign(client: MlflowClient, reference: str) -> None:
    """Sign the version with a number or an alias, which has none of the trusted signatures yet.

    Its files are verified first. Set no trusted keys for this call, since they would refuse the version. Raises
    RequestError without a signing key, and WorkError if the files cannot be verified.
    """
    signing.check()
    version = find(client, reference)
    with opened(client, version) as copy:
        digest = checksums.digest(copy.folder)
        if not (signature := signing.sign(NAME, digest)):
            raise RequestError(f"set {signing.SIGNING_KEY} to the file of the key that signs version {version.version}")
        _upload_checksums(client, copy)
    tag(client, version, {VersionTag.SHA256: digest, VersionTag.SIGNATURE: signature})


def find(client: MlflowClient, reference: str) -> ModelVersion:
    """Return the version with a number or an alias. Raises RequestError, which lists those that exist."""
    try:
        if reference.isdigit():
            return client.get_model_version(NAME, reference)
        return client.get_model_version_by_alias(NAME, reference)
    except MlflowException as error:
        if not transport.is_missing(error):
            raise
        what = f"version {reference}" if reference.isdigit() else f"alias {reference!r}"
        raise RequestError(f"{NAME} has no {what}; {existing(client)}") from error


def find_uri(client: MlflowClient, uri: str) -> ModelVersion:
    """Return the version at `models:/fashion-mnist@ALIAS` or `models:/fashion-mnist/VERSION`. Raises RequestError."""
    for separator in ("@", "/"):
        start = f"models:/{NAME}{separator}"
        if uri.startswith(start) and len(uri) > len(start):
            return find(client, uri.removeprefix(start))
    raise RequestError(f"model {uri!r} must be models:/{NAME}@ALIAS or models:/{NAME}/VERSION; {existing(client)}")


def by_number(client: MlflowClient) -> dict[str, ModelVersion]:
    """Return all versions by their numbers."""
    return {str(version.version): version for version in client.search_model_versions(f"name = '{NAME}'")}


def registered_model(client: MlflowClient) -> RegisteredModel | None:
    """Return the registered model, or None before the first version."""
    try:
        return client.get_registered_model(NAME)
    except MlflowException as error:
        if transport.is_missing(error):
            return None
        raise


def aliases(client: MlflowClient) -> dict[str, str]:
    """Return the version number of each alias; empty before the first version."""
    model = registered_model(client)
    return {alias: str(number) for alias, number in model.aliases.items()} if model else {}


def version_by_alias(client: MlflowClient, alias: str) -> ModelVersion | None:
    """Return the version with an alias, or None."""
    number = aliases(client).get(alias)
    return find(client, number) if number else None


def needed(client: MlflowClient) -> tuple[set[str], set[str]]:
    """Return the ids of the logged models and of the runs that versions of any name need.

    A version needs a run if its source is an address of the run, and if it was refitted from the run's model.
    """
    models, runs = set[str](), set[str]()
    token = None
    while True:
        page = client.search_model_versions(page_token=token)
        for version in page:
            models.update(filter(None, [logged_model(version)]))
            runs.update(filter(None, [version.run_id, version.tags.get(VersionTag.REFIT_OF)]))
        if not (token := page.token):
            return models, runs


def tag(client: MlflowClient, version: ModelVersion, tags: Mapping[str, object], replacing: str = "") -> None:
    """Set tags of a version, and delete its other tags that start with `replacing`."""
    known = find(client, str(version.version)).tags if replacing else {}
    for key in known:
        if key.startswith(replacing) and key not in tags:
            client.delete_model_version_tag(NAME, version.version, key)
    for key, value in tags.items():
        client.set_model_version_tag(NAME, version.version, key, without_secrets(str(value)))


def describe(client: MlflowClient, version: ModelVersion, accuracies: Mapping[str, str], card: str = "") -> None:
    """Write the description of a version, which the MLflow UI shows, unless a person has written or changed it.

    It names the accuracies, which are texts with their intervals, and the run `card`, which has the version's model
    card, if there is one.
    """
    known = find(client, str(version.version))
    before, digest = known.description or "", known.tags.get(VersionTag.DESCRIPTION_SHA256)
    if before and _digest(before) != digest and (digest or not before.startswith(EARLIER_START)):
        return
    named = [f"{name} {accuracy}" for name, accuracy in accuracies.items()]
    text = render("version", "markdown", uri=uri(version), accuracies=named, run_id=version.run_id, card=card)
    tag(client, version, {VersionTag.DESCRIPTION_SHA256: _digest(text)})  # first: without it, a person wrote the text
    client.update_model_version(NAME, version.version, description=text)


def test_accuracy(client: MlflowClient, version: ModelVersion) -> str:
    """Return the test accuracy of a version with its interval, or an empty text if no run has scored the version."""
    known, by = version.tags.get(VersionTag.TEST_ACCURACY), version.tags.get(VersionTag.EVALUATED_BY, "")
    if not known:
        return ""
    return intervals.text(
        float(known), image_count(client, str(version.run_id), "test") or image_count(client, by, "test")
    )


def existing(client: MlflowClient) -> str:
    """Return a sentence about the versions and aliases that exist, for errors."""
    numbers = sorted(map(int, by_number(client)))
    if not numbers:
        return "none is registered yet; `fmnist-exp tune` registers one"
    named = [f"{alias} (version {version})" for alias, version in sorted(aliases(client).items())]
    shown = [*(["…"] if len(numbers) > 20 else []), *map(str, numbers[-20:])]
    return f"versions: {', '.join(shown)}; aliases: {', '.join(named) or 'none'}"


def _of_model(client: MlflowClient, model_id: str) -> list[ModelVersion]:
    """Return the versions of a logged model, the first one first."""
    found = [version for version in by_number(client).values() if logged_model(version) == model_id]
    return sorted(found, key=lambda version: int(version.version))


def _create(client: MlflowClient, model_id: str, run_id: str, tags: Mapping[str, object]) -> list[ModelVersion]:
    _create_registered_model(client)
    with private_copy.opened(client, model_id) as copy:
        digest = checksums.digest(copy.folder)
        _upload_checksums(client, copy)
    texts = {str(key): without_secrets(str(value)) for key, value in tags.items()}
    texts |= {VersionTag.SHA256: digest, VersionTag.SPOOL_ID: str(tags.get(VersionTag.SPOOL_ID) or ids.new())}
    if signature := signing.sign(NAME, digest):
        texts[VersionTag.SIGNATURE] = signature
    client.create_model_version(NAME, f"models:/{model_id}", run_id, tags=texts, model_id=model_id)
    return _of_model(client, model_id)


def _accuracies(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the accuracies among a version's tags with their intervals, by what they were measured on."""
    judged = tags.get(VersionTag.REFIT_OF, run_id)
    validation = f"validation accuracy{' of the judged network' if judged != run_id else ''}"
    measured = {
        "test accuracy": (VersionTag.TEST_ACCURACY, run_id, "test"),
        validation: (VersionTag.VAL_ACCURACY, judged, "validation"),
    }
    return {
        name: intervals.text(float(tags[tag]), image_count(client, run, purpose))
        for name, (tag, run, purpose) in measured.items()
        if tag in tags
    }


def _upload_checksums(client: MlflowClient, copy: PrivateCopy) -> None:
    """Add the list of checksums to the files of a logged model if an earlier release logged it without the list."""
    if not (copy.folder / checksums.FILE).is_file():
        checksums.write(copy.folder)
        client.log_model_artifact(copy.model_id, str(copy.folder / checksums.FILE))


def _create_registered_model(client: MlflowClient) -> None:
    text = render("registered_model", "markdown", name=NAME)
    try:
        client.create_registered_model(NAME, description=text)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        if client.get_registered_model(NAME).description == EARLIER_DESCRIPTION:
            client.update_registered_model(NAME, description=text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
