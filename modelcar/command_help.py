"""Command lines as their readers see them: examples in `--help`, and what a parser consists of."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

#: Heads the examples in a command's help.
HEADING = "examples:"


def add_examples(command: argparse.ArgumentParser, *examples: str) -> None:
    """Let a command's help end with examples.

    Args:
        command: its parser.
        examples: what is typed after the command's own name, one line each.
    """
    command.formatter_class = argparse.RawDescriptionHelpFormatter  # or the lines become one paragraph
    command.epilog = "\n".join([HEADING, *(f"  %(prog)s {line}".rstrip() for line in examples)])


def examples_of(command: argparse.ArgumentParser) -> list[str]:
    """Return the examples that a command's help shows, each a whole command line."""
    _, _, shown = command.format_help().partition(f"\n{HEADING}\n")
    return [line.strip() for line in shown.splitlines() if line.strip()]


def actions_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the options and arguments that a parser's help shows."""
    for action in parser._actions:  # argparse has no public name for them
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction):
            yield action


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return a parser's commands by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def summaries_of(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return the line that a parser's help has for each of its commands, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {choice.dest: choice.help or "" for choice in action._choices_actions}
    return {}
