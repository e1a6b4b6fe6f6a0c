"""Secrets of a stack's file that would be written in the clear."""

from __future__ import annotations

from collections.abc import Iterator

from components.config.problems import NAMESPACE, problem
from components.config.secrets import KEPT, Secrets
from modelcar.errors import Problem


def not_kept(secrets: Secrets) -> Iterator[Problem]:
    """Yield each key whose value the program writes into names, labels, outputs or files."""
    for key in sorted(secrets.keys - KEPT):
        yield problem(
            key,
            "a Pulumi secret (not shown), and the program writes it into names, outputs or objects for "
            "everybody to read",
            f"secrets in {', '.join(sorted(KEPT))}",
            f"set it as plain text: pulumi config rm {NAMESPACE}:{key}, then set it again without --secret",
        )


def in_git(secrets: Secrets) -> Iterator[Problem]:
    """Yield each key whose secret would stand in a file that is committed."""
    for key in secrets.in_pods:
        one = f"{NAMESPACE}:{key}"
        place = "the server's arguments and variables of one of them" if key == "models" else one
        yield problem(
            key,
            "holds a Pulumi secret, and Git is no place for it (not shown)",
            "values that everybody may read; with modelcar:delivery cluster, secrets that stay encrypted in "
            "the state",
            f"take it out of {place} (pulumi config rm --path '{one}[…]'), and let a gateway before it "
            "ask for it; change it if it was committed before",
        )
