"""Arguments of components: checked as early as they are known."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pulumi

from modelcar.errors import InputError

T = TypeVar("T")


def is_known(value: Any) -> bool:
    """Tell whether an argument is a plain value, which no other resource produces."""
    return not isinstance(value, pulumi.Output | Awaitable)


def checked(value: pulumi.Input[T], check: Callable[[T], None]) -> pulumi.Input[T]:
    """Check an argument at once where it is plain, and else when it is there, with the same words.

    Args:
        value: of the argument.
        check: raises InputError where it is wrong.

    Raises:
        modelcar.errors.InputError: a plain value is wrong.
        pulumi.RunError: (inside of the output) another resource produced a value that is wrong.
    """
    if is_known(value):
        check(value)  # type: ignore[arg-type]
        return value

    def when_known(found: Any) -> T:
        try:
            check(found)
        except InputError as error:
            raise pulumi.RunError(str(error)) from None
        return found  # type: ignore[no-any-return]

    return pulumi.Output.from_input(value).apply(when_known)
