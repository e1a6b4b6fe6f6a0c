"""The file that stands for Google Cloud.

Several provider processes may run at a time, so a change takes an exclusive lock (a file beside), reads,
changes and replaces the file in one step; a reader always sees a whole file and needs no lock.

    {"projects":  {"my-project": {"number": "123456789012"}},   only these exist, where the section is there
     "enabled":   {"my-project": ["container.googleapis.com"]},  APIs that are on
     "resources": {"projects/…/clusters/x": {"type": "gcp:…", "state": {…}}}}
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

VARIABLE: Final = "MODELCAR_GCP_STANDIN"
DEFAULT: Final = Path(".local") / "gcp-standin.json"

Document = dict[str, Any]


class CloudFileError(Exception):
    """The file cannot be read or written."""


class GoogleError(Exception):
    """A refusal in the words of Google's APIs; code: the HTTP status."""

    def __init__(self, code: int, message: str, *, fix: str = "") -> None:
        self.code = code
        super().__init__(f"googleapi: Error {code}: {message}" + (f". fix: {fix}" if fix else ""))


class Cloud:
    """Access to the file."""

    def __init__(self, path: Path | None = None) -> None:
        """Path: the file; by default what the environment says, or one under the working directory."""
        self.path = (path or Path(os.environ.get(VARIABLE) or DEFAULT)).absolute()

    def read(self) -> Document:
        """Return the content; an empty cloud where there is no file yet.

        Raises:
            CloudFileError: the file cannot be read or holds no JSON object.
        """
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            document = {}
        except (OSError, ValueError) as error:
            raise CloudFileError(
                f"{self.path}: {error}. fix: correct or delete the file, or name another one in {VARIABLE}"
            ) from error
        if not isinstance(document, dict):
            raise CloudFileError(f"{self.path}: no JSON object. fix: delete the file")
        document.setdefault("enabled", {})
        document.setdefault("resources", {})
        return document

    @contextmanager
    def change(self) -> Iterator[Document]:
        """Give the content to change it; it is written when the block ends without an exception."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = self.path.with_name(self.path.name + ".lock").open("w")
        except OSError as error:
            raise CloudFileError(
                f"{self.path}: {error}. fix: name a file you may write in {VARIABLE}"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed
            document = self.read()
            before = json.dumps(document, sort_keys=True)
            yield document
            if json.dumps(document, sort_keys=True) != before:
                self._write(document)

    def _write(self, document: Document) -> None:
        try:
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=self.path.parent, prefix=f".{self.path.name}.", delete=False
            ) as file:
                json.dump(document, file, indent=2, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(self.path)
        except OSError as error:
            raise CloudFileError(
                f"{self.path}: {error}. fix: name a file you may write in {VARIABLE}"
            ) from error


def project_number(document: Document, project: str) -> str:
    """Return a project's number: the one that the file says, else one that follows from its id."""
    known = (document.get("projects") or {}).get(project) or {}
    return str(known.get("number") or digits(f"project/{project}", 12))


def digits(text: str, length: int) -> str:
    """Return a number of that many digits (the first not 0) that follows from a text."""
    value = int(hashlib.sha256(text.encode()).hexdigest(), 16)
    return str(10 ** (length - 1) + value % (9 * 10 ** (length - 1)))
