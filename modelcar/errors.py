"""One shape for every refusal of bad input.

A person who reads the message must be able to act on it without reading the code, so each problem
carries four things: what was looked at, what was found there, what is allowed, and the fix.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelcar.paths import printable

if TYPE_CHECKING:
    _Error = Exception
else:
    # Pulumi prints the message of a RunError alone, and of another exception the traceback too. A program of
    # Pulumi's has loaded it before; nothing here needs it.
    _Error = getattr(sys.modules.get("pulumi"), "RunError", Exception)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the input.

    key: the configuration key or the path that was looked at.
    value: what was found there, already fit for printing (never a secret).
    allowed: what would have been accepted.
    fix: what the reader can do now, as an instruction.
    """

    key: str
    value: str
    allowed: str
    fix: str

    def __str__(self) -> str:
        text = f"{self.key}: {self.value}\n    allowed: {self.allowed}\n    fix: {self.fix}"
        # What was found may be anybody's: it must not act on the terminal that shows it.
        return printable(text, but="\n\t")


class InputError(_Error):
    """Bad input, found before anything was built or declared. Holds every problem, not the first only."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        if not self.problems:
            raise ValueError("an InputError needs at least one problem")
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UnansweredError(InputError):
    """A registry or a hub does not answer, or not to this machine: nothing is known of what it has.

    Nothing of the input need be wrong, so that commands end with the exit code of a machine's errors.
    """


def refuse(key: str, value: object, *, allowed: str, fix: str) -> InputError:
    """Return the error for a single problem, ready to be raised."""
    return InputError([Problem(key, str(value), allowed, fix)])
