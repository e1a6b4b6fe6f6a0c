"""`modelcar-kserve`, or `python -m modelcar_kserve`: lock, push and look at models, in the current folder."""

from pathlib import Path
from typing import NoReturn

from modelcar_kserve.modelcar.__main__ import leave, main
from modelcar_kserve.modelcar.version import DISTRIBUTION


def run() -> NoReturn:
    """Run one command on the current folder's project, and end with its exit code."""
    leave(main(prog=DISTRIBUTION, project=Path.cwd()))


if __name__ == "__main__":
    run()
