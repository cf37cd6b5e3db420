"""Check the JSON, YAML and other text files of a model before a parser builds objects from them."""

import json
import re

import yaml

from fmnist_exp.errors import WorkError

DEPTH = 100  # lists and mappings inside each other; Keras nests about 20 for a network inside a network
VALUES = 400_000  # in a file; the configuration of a layer has about 40
YAML_BYTES = 64 * 2**10  # MLmodel and the environments have 3 KiB at most, and the parser reads 100 KiB in a second
NAME_LENGTH = 100  # characters of a class's name, which predictions repeat for every image
TOKENS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]|[,:]', re.DOTALL)


def check_json(text: bytes) -> object:
    """Return the content of a JSON text, after counting its values. Raises WorkError or ValueError."""
    depth = values = 0
    for token in TOKENS.finditer(text):
        found = text[token.start()]
        if found in b"[{":
            depth += 1
        elif found in b"]}":
            depth -= 1
        values += found in b"[{,:"
        if depth > DEPTH:
            raise WorkError(f"lists and mappings are nested more than {DEPTH} deep")
        if values > VALUES:
            raise WorkError(f"it has more than {VALUES:,} values")
    content: object = json.loads(text)
    return content


def check_yaml(text: bytes) -> None:
    """Raise WorkError or YAMLError unless the YAML text is small, shallow and free of aliases.

    A few aliases of aliases expand to gigabytes, and MLflow writes none.
    """
    if len(text) > YAML_BYTES:
        raise WorkError(f"it has {len(text):,} bytes, and at most {YAML_BYTES:,} are read")
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise WorkError(f"it has an alias (*{str(event.anchor)[:NAME_LENGTH]}), which MLflow does not write")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise WorkError(f"lists and mappings are nested more than {DEPTH} deep")


def check_names(text: bytes) -> int:
    """Return the number of class names, one in each line. Raises WorkError if one is empty or too long."""
    names = text.decode().splitlines()
    for name in names:
        if not 0 < len(name) <= NAME_LENGTH:
            raise WorkError(f"the name of a class has {len(name):,} characters, expected 1 to {NAME_LENGTH}")
    return len(names)
