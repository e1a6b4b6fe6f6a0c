"""Command line for models: `python -m modelcar lock|fetch|verify|diff|digest|check|tiny|made-up|base …`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from modelcar.cli.parser import parser
from modelcar.errors import InputError, UnansweredError

#: Folder that models, locks and layouts are below, of a checkout.
PROJECT = Path(__file__).absolute().parent.parent
#: Exit code of a command that the user stopped: 128 and SIGINT, as a shell has it.
STOPPED = 130


def main(
    arguments: Sequence[str] | None = None, *, prog: str = "python -m modelcar", project: Path = PROJECT
) -> int:
    """Run one command and return its exit code.

    0; 1 for differences and the machine's errors; 2 for bad input; 130 when it was stopped.

    Args:
        arguments: of the command line; those of this process by default.
        prog: how the command is called, for its help.
        project: folder that models, locks and layouts are below.
    """
    options = parser(prog, project).parse_args(arguments)
    run: Callable[[argparse.Namespace], int | None] = options.run
    try:
        return run(options) or 0
    except UnansweredError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except InputError as error:
        count = len(error.problems)
        print(f"{count} problem{'s' * (count != 1)} with the input:\n{error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; running the same command again continues", file=sys.stderr)
        return STOPPED


def leave(status: int) -> NoReturn:
    """End this process with a command's exit code; a stopped one ends at once."""
    if status == STOPPED:  # Python would wait for threads, and those for a server that hangs
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    leave(main())
