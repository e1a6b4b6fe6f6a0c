"""Command line for weights: `python -m modelcar tiny DEST`, `check FOLDER`, `layout FOLDER DEST`."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from modelcar.errors import InputError
from modelcar.layout import LARGE_FILE, write_layout
from modelcar.tiny_model import make_tiny_model
from modelcar.weights import Weights, read_weights

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 for the machine's errors, 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "tiny":
            _say(str(make_tiny_model(options.destination, seed=options.seed)))
        elif options.command == "check":
            _check(read_weights(options.folder))
        else:
            _layout(options.folder, options.destination, options.architecture)
    except InputError as error:
        count = len(error.problems)
        print(f"{count} problem{'s' * (count != 1)} with the input:\n{error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; running the same command again continues", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m modelcar", description="Check and pack model weights.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    tiny = commands.add_parser("tiny", help="make a tiny Qwen2 model with random weights")
    tiny.add_argument("destination", type=Path, metavar="DEST", help="folder to make")
    tiny.add_argument("--seed", type=int, default=0, help="of the random weights (default: 0)")

    check = commands.add_parser("check", help="say what is in a folder of weights, and what is wrong with it")
    check.add_argument("folder", type=Path, metavar="FOLDER", help="folder with config.json and safetensors")

    layout = commands.add_parser("layout", help="write weights as an OCI image layout")
    layout.add_argument("folder", type=Path, metavar="FOLDER", help="folder with config.json and safetensors")
    layout.add_argument("destination", type=Path, metavar="DEST", help="folder of the layout")
    layout.add_argument("--architecture", default="amd64", help="OCI name of the processor (default: amd64)")
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


def _amount(size: float) -> str:
    """Return a size in bytes for people to read."""
    if size < 1024:
        return f"{size:.0f} B"
    power = min(int(math.log2(size)) // 10, len(_UNITS))
    return f"{size / 1024**power:.1f} {_UNITS[power - 1]}"


def _check(weights: Weights) -> None:
    config = weights.config
    width = max(len(file.path) for file in weights.files)
    for file in weights.files:
        own = "own layer" if file.size >= LARGE_FILE else ""
        _say(f"{file.path:<{width}}  {_amount(file.size):>10}  {own}".rstrip())
    _say(f"{'in all':<{width}}  {_amount(weights.total_size):>10}  {len(weights.files)} files")
    name = ", ".join(config.architectures) or config.model_type
    _say(f"{name}, {weights.parameters:,} parameters, {config.dtype or 'type of the numbers not said'}")


def _layout(folder: Path, destination: Path, architecture: str) -> None:
    weights = read_weights(folder)
    started = time.monotonic()
    on_terminal = sys.stderr.isatty()

    def report(written: int, needed: int) -> None:
        if on_terminal:
            print(f"\r{_amount(written)} of {_amount(needed)} written", end="", file=sys.stderr, flush=True)

    layout = write_layout(weights, destination, architecture=architecture, report=report)
    if on_terminal and layout.written:
        print(file=sys.stderr)
    for layer in layout.layers:
        more = f" and {len(layer.files) - 1} more" if len(layer.files) > 1 else ""
        _say(f"{layer.digest}  {_amount(layer.size):>10}  {layer.files[0]}{more}")
    seconds = time.monotonic() - started
    _say(f"{_amount(layout.written)} of {_amount(layout.total_size)} written in {seconds:.2f} s")
    _say(layout.context)


if __name__ == "__main__":
    sys.exit(main())
