"""Keep pyproject.toml's constraints in step with requirements.lock.

requirements.lock has a hash for every file and no index address, so it installs from any mirror. The
official Pulumi language host, however, runs `uv sync`, which reads pyproject.toml only: with every
version repeated there as a constraint, it resolves to the very same ones.
"""

from __future__ import annotations

import re
import sys

from local.instance import PROJECT

START = "# Written by `make lock` from requirements.lock; see local/lock.py.\nconstraint-dependencies = [\n"
END = "]\n"


def pins() -> list[str]:
    """Return every requirement of the lock as NAME==VERSION (with its marker)."""
    text = (PROJECT / "requirements.lock").read_text()
    return [
        line.removesuffix("\\").strip().replace('"', "'")
        for line in text.splitlines()
        if re.match(r"^[a-z0-9].*==", line)
    ]


def with_pins(pyproject: str) -> str:
    """Return the text of pyproject.toml with the constraints replaced."""
    before, _, rest = pyproject.partition(START)
    after = rest.partition(END)[2] if rest else ""
    if not rest:
        before = before.replace("package = false\n", f"package = false\n{START}{END}", 1)
        before, _, rest = before.partition(START)
        after = rest.partition(END)[2]
    body = "".join(f'    "{pin}",\n' for pin in pins())
    return before + START + body + END + after


def main() -> int:
    """Write the constraints; with --check, only tell whether they are in step."""
    path = PROJECT / "pyproject.toml"
    wanted = with_pins(path.read_text())
    if path.read_text() == wanted:
        return 0
    if "--check" in sys.argv:
        print("pyproject.toml: constraints differ from requirements.lock; run `make lock`", file=sys.stderr)
        return 1
    path.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
