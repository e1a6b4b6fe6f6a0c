"""Versions of releases: SemVer for people, tags and Pulumi; the same as Python writes it for the package."""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelcar.errors import refuse

#: How Python writes the pre-releases that a release can be.
_KINDS = {"alpha": "a", "beta": "b", "rc": "rc"}
_NUMBER = r"(0|[1-9]\d*)"
_PATTERN = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-(alpha|beta|rc)\.{_NUMBER})?")
ALLOWED = "SemVer: X.Y.Z, or X.Y.Z-alpha.N, -beta.N or -rc.N; three numbers, without a `v`"


@dataclass(frozen=True)
class Version:
    """One version. kind: of a pre-release, empty for none; number: of the pre-release."""

    major: int
    minor: int
    patch: int
    kind: str = ""
    number: int = 0

    def __str__(self) -> str:
        return f"{self.base}-{self.kind}.{self.number}" if self.kind else self.base

    @property
    def base(self) -> str:
        """Its three numbers."""
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def line(self) -> str:
        """The minor version that it belongs to."""
        return f"{self.major}.{self.minor}"

    @property
    def python(self) -> str:
        """The same as pyproject.toml and the package have it: 0.3.0rc1."""
        return f"{self.base}{_KINDS[self.kind]}{self.number}" if self.kind else self.base

    @property
    def tag(self) -> str:
        """Name of the Git tag."""
        return f"v{self}"

    @property
    def order(self) -> tuple[tuple[int, int, int], bool, str, int]:
        """What versions are compared by, as SemVer does it: a pre-release is older than its release."""
        return (self.major, self.minor, self.patch), not self.kind, self.kind, self.number


def parse(text: str) -> Version:
    """Return a version out of what a person wrote.

    Raises:
        InputError: it is no SemVer, or a pre-release that Python cannot say.
    """
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise refuse(
            "VERSION", text or "not set", allowed=ALLOWED, fix="for example: make release VERSION=0.3.0"
        )
    major, minor, patch, kind, number = found.groups()
    return Version(int(major), int(minor), int(patch), kind or "", int(number or 0))


def of_tags(tags: list[str]) -> list[Version]:
    """Return the versions that tags name, the oldest first; other tags are left out."""
    found = [parse(tag[1:]) for tag in tags if tag.startswith("v") and _PATTERN.fullmatch(tag[1:])]
    return sorted(found, key=lambda version: version.order)
