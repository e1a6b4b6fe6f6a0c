"""What `--help` shows can be typed: every example of every command line is parsed by its real parser."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest

from local import __main__ as local_commands
from local import arguments as local_arguments
from modelcar.cli.parser import parser as modelcar_parser
from modelcar.command_help import add_examples, commands_of, examples_of
from operations import __main__ as operations_commands
from operations import arguments as operations_arguments

PARSERS = {
    "modelcar-kserve": modelcar_parser("modelcar-kserve", Path()),
    "python -m modelcar": modelcar_parser("python -m modelcar", Path()),
    "python -m operations": operations_arguments.parser(Path()),
    "python -m local": local_arguments.parser(),
}
COMMANDS = [(prog, name) for prog, parser in PARSERS.items() for name in commands_of(parser)]


def parsed(parser: argparse.ArgumentParser, line: str) -> argparse.Namespace:
    assert line.startswith(f"{parser.prog} "), f"{line!r} is no command of {parser.prog}"
    return parser.parse_args(shlex.split(line.removeprefix(parser.prog)))


@pytest.mark.parametrize(("prog", "name"), COMMANDS)
def test_the_help_of_each_command_has_examples_that_parse(prog: str, name: str) -> None:
    parser = PARSERS[prog]
    examples = examples_of(commands_of(parser)[name])
    assert examples, f"{prog} {name} --help has no example"
    for line in examples:
        assert parsed(parser, line).command == name


@pytest.mark.parametrize(
    "example", ["--folder weights", "my-model --hub a/b --folder c", "my-model --layouts x"]
)
def test_an_example_that_has_rotted_is_found(example: str) -> None:
    parser = modelcar_parser("modelcar-kserve", Path())
    lock = commands_of(parser)["lock"]
    add_examples(lock, example)
    [line] = examples_of(lock)
    with pytest.raises(SystemExit):
        parsed(parser, line)


@pytest.mark.parametrize(
    "line", ["smoke --stack dev --namespace Bad_Name", "admission --stack dev --secret 'A B'"]
)
def test_a_name_that_kubernetes_refuses_is_refused_as_it_is_typed(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(PARSERS["python -m operations"], f"python -m operations {line}")
    assert "lower-case letters" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["''", "' '"])
def test_an_empty_question_is_a_variable_that_is_not_set(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(PARSERS["python -m operations"], f"python -m operations chat --stack dev --ask {text}")
    assert "--ask: it is empty: is the shell's variable set?" in capsys.readouterr().err


def test_the_help_of_operate_names_every_operation() -> None:
    assert set(local_arguments.OPERATIONS) == commands_of(PARSERS["python -m operations"]).keys()
    assert ", ".join(local_arguments.OPERATIONS) in " ".join(
        commands_of(PARSERS["python -m local"])["operate"].format_help().split()
    )


def test_each_command_is_one_that_runs() -> None:
    assert operations_commands.RUN.keys() == commands_of(PARSERS["python -m operations"]).keys()
    assert local_commands.RUN.keys() == commands_of(PARSERS["python -m local"]).keys()
