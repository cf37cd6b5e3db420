"""The file with which the processes of a Dask cluster recognise each other and encrypt what they say."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fmnist_exp.errors import RequestError

DAYS = 365  # for which a certificate is valid
ROLES = ("scheduler", "worker", "client")
PAGES = "distributed.http.health"  # the one HTTP page to serve: others show the logs to everyone who asks


def write(path: Path) -> None:
    """Write a new key, its certificate and the settings with which Dask uses both, readable by the owner only.

    The scheduler, the workers and the driver use the same file: each accepts only a peer that has the key. The
    certificate names no host, because Dask does not compare names.

    Args:
        path: the file, which DASK_CONFIG is to name on every machine.

    Raises:
        RequestError: the file exists or cannot be written.
        OSError: the disk is full; no file is left.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise RequestError(f"{path} exists; a cluster may be using it, so move it away or name another file") from error
    except OSError as error:
        raise RequestError(
            f"{path} cannot be written: {error.strerror}; make its folder, or name another file"
        ) from error
    certificate, key = _make()
    tls = {"ca-file": certificate, **{role: {"cert": certificate + key} for role in ROLES}}
    pages = {role: {"http": {"routes": [PAGES]}} for role in ("scheduler", "worker")}
    settings = {"comm": {"require-encryption": True, "tls": tls}, **pages}
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            yaml.safe_dump({"distributed": settings}, file)
    except OSError:  # half of the file would keep the next call from writing it
        path.unlink(missing_ok=True)
        raise


def _make() -> tuple[str, str]:
    """Return a certificate that is its own authority, and its key, both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fmnist_exp cluster")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # the clocks of other machines may be slow
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()
