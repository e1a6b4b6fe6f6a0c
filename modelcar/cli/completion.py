"""Completion of commands, options and their values, for three shells.

What can be completed is read off the parser, so that nothing has to be kept beside it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelcar.command_help import actions_of, commands_of, summaries_of
from modelcar.version import DISTRIBUTION

#: Placeholders of values that are files or folders.
FILES = frozenset({"PATH", "FOLDER", "FILE", "DEST", "KEY"})
_BASH = """\
# {script}: completion for bash.
# {script} completion bash > ~/.local/share/bash-completion/completions/{script}
{function}() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
    local command="" words=""
    if (( COMP_CWORD > 1 )); then command="${{COMP_WORDS[1]}}"; fi
    case "$command $previous" in
{values}
        *) case "$command" in
{commands}
        esac;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
# Where nothing else fits, files do.
complete -o default -F {function} {script}
"""
_ZSH = """\
#compdef {script}
# {script}: completion for zsh.
# {script} completion zsh > FOLDER/{function}, where fpath has FOLDER before compinit runs
{function}() {{
    local -a commands
    commands=(
{names}
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    local command="$words[2]"
    shift words
    (( CURRENT-- ))
    case "$command" in
{commands}
    esac
}}
if [[ "$funcstack[1]" == {function} ]]; then
    {function} "$@"
else
    compdef {function} {script}
fi
"""
_FISH = """\
# {script}: completion for fish.
# {script} completion fish > ~/.config/fish/completions/{script}.fish
complete -c {script} -f
{lines}
"""


@dataclass(frozen=True)
class Argument:
    """One option or argument of a command.

    flags: how an option is written; none for an argument.
    placeholder: of its value; empty where it takes none.
    choices: what its value may be, if that is known.
    repeatable: it may be there several times.
    is_file: its value is a file or folder.
    """

    flags: tuple[str, ...]
    placeholder: str
    choices: tuple[str, ...]
    text: str
    repeatable: bool
    is_file: bool


@dataclass(frozen=True)
class Command:
    """One command with what it takes."""

    name: str
    text: str
    arguments: tuple[Argument, ...]


def run_completion(options: argparse.Namespace) -> None:
    """Print the completion script of a shell."""
    print(SHELLS[options.shell](list(commands(options.parser))), end="")


def commands(parser: argparse.ArgumentParser) -> Iterator[Command]:
    """Yield the commands of a parser."""
    summaries = summaries_of(parser)
    for name, command in commands_of(parser).items():
        yield Command(name, summaries[name], tuple(map(_argument, actions_of(command))))


def _argument(action: argparse.Action) -> Argument:
    placeholder = ""
    if action.nargs != 0:
        placeholder = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return Argument(
        tuple(action.option_strings),
        placeholder,
        tuple(map(str, action.choices or ())),
        (action.help or "").replace("%%", "%"),
        isinstance(action, argparse._AppendAction),  # argparse has no public name for it
        action.type is Path or placeholder in FILES,
    )


def bash(found: list[Command]) -> str:
    """Return the script for bash."""
    values: list[str] = []
    others: list[str] = []
    words = [f'            "") words="{" ".join(command.name for command in found)}";;']
    for command in found:
        offered: list[str] = []
        for argument in command.arguments:
            offered += argument.flags or argument.choices
            if argument.flags and argument.placeholder:
                pattern = "|".join(f'"{command.name} {flag}"' for flag in argument.flags)
                known = f'words="{" ".join(argument.choices)}"'
                if argument.choices:
                    values.append(f"        {pattern}) {known};;")
                else:
                    others.append(pattern)
        words.append(f'            {command.name}) words="{" ".join(offered)}";;')
    # Any other value: none is known, so that files are offered.
    values.append(f"        {'|'.join(others)}) ;;")
    return _BASH.format(
        script=DISTRIBUTION, function=_function(), values="\n".join(values), commands="\n".join(words)
    )


def zsh(found: list[Command]) -> str:
    """Return the script for zsh."""
    names, cases = [], []
    for command in found:
        names.append(f"        {_quoted(f'{command.name}:{command.text}')}")
        specs = [_zsh_spec(argument) for argument in command.arguments]
        cases.append(f"        {command.name}) _arguments {' '.join(map(_quoted, specs))};;")
    return _ZSH.format(
        script=DISTRIBUTION, function=_function(), names="\n".join(names), commands="\n".join(cases)
    )


def _zsh_spec(argument: Argument) -> str:
    value = ""
    if argument.placeholder:
        action = "_files" if argument.is_file else f"({' '.join(argument.choices)})"
        value = (
            f":{_zsh_text(argument.placeholder)}:{action if argument.is_file or argument.choices else ' '}"
        )
    if not argument.flags:
        return value
    # Several spellings of one option: only the last is offered, as it says what it does.
    flag = argument.flags[-1]
    return f"{'*' if argument.repeatable else ''}{flag}[{_zsh_text(argument.text)}]{value}"


def _zsh_text(text: str) -> str:
    return re.sub(r"([\[\]:\\])", r"\\\1", text)


def fish(found: list[Command]) -> str:
    """Return the script for fish."""
    lines = []
    for command in found:
        start = f"complete -c {DISTRIBUTION} -n"
        lines.append(f"{start} __fish_use_subcommand -a {command.name} -d {_quoted(command.text, fish=True)}")
        inside = f"{start} '__fish_seen_subcommand_from {command.name}'"
        for argument in command.arguments:
            parts = [inside]
            for flag in argument.flags:
                parts.append(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}")
            if argument.is_file:
                parts.append("-F" if not argument.flags else "-r -F")
            elif argument.choices:
                known = _quoted(" ".join(argument.choices), fish=True)
                parts.append(f"-a {known}" if not argument.flags else f"-x -a {known}")
            elif argument.placeholder:
                if not argument.flags:
                    continue
                parts.append("-x")
            if argument.flags:
                parts.append(f"-d {_quoted(argument.text, fish=True)}")
            lines.append(" ".join(parts))
    return _FISH.format(script=DISTRIBUTION, lines="\n".join(lines))


def _function() -> str:
    return "_" + DISTRIBUTION.replace("-", "_")


def _quoted(text: str, *, fish: bool = False) -> str:
    if fish:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return "'" + text.replace("'", "'\\''") + "'"


#: Shells, and what makes their scripts.
SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}
