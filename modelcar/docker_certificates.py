"""The certificates that docker has for a registry: its own authority, and a client certificate.

Docker's `certs.d/HOST[:PORT]`: each `*.crt` is an authority, each `*.cert` a client certificate, with its
`*.key`.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from modelcar.connections import trusted
from modelcar.errors import InputError, refuse
from modelcar.home import in_home

#: Docker Engine's folder, that of a rootless one, and Docker Desktop's.
FOLDERS = ("/etc/docker/certs.d", "~/.config/docker/certs.d", "~/.docker/certs.d")


def tls_of(host: str) -> ssl.SSLContext:
    """Return whom to trust for a registry: the system's authorities, and docker's for this one.

    Args:
        host: HOST[:PORT], as references name the registry.

    Raises:
        InputError: a certificate cannot be read.
    """
    context = trusted()
    for folder in (in_home(parent) / host for parent in FOLDERS):
        try:
            files = sorted(folder.iterdir()) if folder.is_dir() else []
        except OSError as error:
            raise _unreadable(folder, error) from None
        for file in files:
            try:
                if file.suffix == ".crt":
                    context.load_verify_locations(file)
                elif file.suffix == ".cert":
                    context.load_cert_chain(file, file.with_suffix(".key"), password=_no_password)
            except (OSError, ValueError) as error:  # of TLS, too
                raise _unreadable(file, error) from None
    return context


def _no_password() -> str:
    raise ValueError("its key has a password, which docker takes neither")


def _unreadable(path: Path, error: Exception) -> InputError:
    return refuse(
        str(path),
        f"cannot be used: {error}",
        allowed="PEM files that you can read: *.crt, and *.cert with its *.key",
        fix="correct it, or make it readable; `docker pull` from this registry needs it too",
    )
