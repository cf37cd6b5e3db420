"""Signatures of models: an Ed25519 key signs the digest of a model's files, and the public keys of owners verify it.

Checksums show that files are those that somebody registered. A signature shows that the holder of a key did it.
"""

import base64
import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from fmnist_exp.errors import RequestError, WorkError

SIGNING_KEY = "FMNIST_EXP_SIGNING_KEY"  # names a PEM file with the private key
TRUSTED_KEYS = "FMNIST_EXP_TRUSTED_KEYS"  # names a PEM file with one or more public keys
Key = TypeVar("Key")
LONGEST = 2**16  # bytes of a key file
PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


def check(*, own_models: bool = False) -> None:
    """Raise RequestError if a key file that the environment names cannot be used.

    Call this before anything is trained. With `own_models`, models that this process logs will be loaded again, so the
    signing key must be one of the trusted keys, if there are any.
    """
    trusted, own = _trusted(), _signing_key()
    if own_models and trusted and (own is None or own.public_key() not in trusted):
        raise RequestError(
            f"{TRUSTED_KEYS} is set, so the models of this command would be refused; set {SIGNING_KEY} to the file of"
            " a private key whose public key is among the trusted ones"
        )


def signer() -> str:
    """Return the public key in hexadecimal that models must be signed with here, or an empty text if there is none."""
    return public_key() if _trusted() else ""


def public_key() -> str:
    """Return the public key in hexadecimal of the key that this process signs with, or an empty text without one."""
    own = _signing_key()
    return own.public_key().public_bytes_raw().hex() if own else ""


def is_signer(required: str) -> bool:
    """Return True if this process signs with the key that `signer` returned in another process, or need not sign."""
    own = _signing_key() if required else None
    return not required or (own is not None and own.public_key().public_bytes_raw().hex() == required)


def sign(name: str, digest: str) -> str:
    """Return the signature of a digest of files together with a name, or an empty text if no signing key is set.

    The name is that of the registered model, or the id of a logged model.
    """
    own = _signing_key()
    return base64.b64encode(own.sign(_message(name, digest))).decode() if own else ""


def verify(name: str, digest: str, signature: str) -> None:
    """Raise WorkError if trusted keys are set, and none of them has signed this digest together with this name."""
    trusted = _trusted()
    if not trusted:
        return
    if not signature:
        raise WorkError(f"it is not signed, and {TRUSTED_KEYS} asks for a signature")
    try:
        raw = base64.b64decode(signature, validate=True)
    except ValueError:
        raw = b""
    if not any(_has_signed(key, raw, _message(name, digest)) for key in trusted):
        raise WorkError(f"its signature is not one of a key in {TRUSTED_KEYS}")


def _has_signed(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _message(name: str, digest: str) -> bytes:
    return f"fmnist_exp model\n{name}\n{digest}\n".encode()


def _signing_key() -> Ed25519PrivateKey | None:
    file = os.environ.get(SIGNING_KEY)
    return _read_private(file) if file else None


def _trusted() -> tuple[Ed25519PublicKey, ...]:
    file = os.environ.get(TRUSTED_KEYS)
    return _read_public(file) if file else ()


@functools.cache  # a command that has begun does not fail because a key file goes away
def _read_private(file: str) -> Ed25519PrivateKey:
    key = _parsed(SIGNING_KEY, file, lambda content: load_pem_private_key(content, password=None))
    if not isinstance(key, Ed25519PrivateKey):
        raise RequestError(
            f"{SIGNING_KEY}={file} is not an Ed25519 key;"
            " `openssl genpkey -algorithm ed25519 -out signing.pem` makes one"
        )
    return key


@functools.cache
def _read_public(file: str) -> tuple[Ed25519PublicKey, ...]:
    keys = _parsed(TRUSTED_KEYS, file, lambda content: [load_pem_public_key(part) for part in PUBLIC.findall(content)])
    found = tuple(key for key in keys if isinstance(key, Ed25519PublicKey))
    if not found or len(found) < len(keys):
        raise RequestError(
            f"{TRUSTED_KEYS}={file} must have Ed25519 public keys and no others;"
            " `openssl pkey -in signing.pem -pubout -out trusted.pem` writes one"
        )
    return found


def _parsed(variable: str, file: str, parse: Callable[[bytes], Key]) -> Key:
    """Return the parsed content of a key file. Raises RequestError."""
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(LONGEST)
        return parse(content)
    except OSError as error:
        raise RequestError(
            f"{variable}={file} cannot be read: {error.strerror}; name a file that you may read"
        ) from error
    except TypeError as error:
        raise RequestError(
            f"{variable}={file} is encrypted; name a file without a password that only you read"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RequestError(f"{variable}={file} is not a key in PEM format") from error
