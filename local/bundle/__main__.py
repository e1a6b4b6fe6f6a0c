"""`python -m local.bundle pack|unpack|check`: make a bundle, and use it on a machine without registries.

`unpack` runs with the standard library only.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
from pathlib import Path

from local.bundle.unpack import BundleError
from local.failed_command import in_words
from modelcar.errors import InputError
from modelcar.progress import say

UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "KI": 2**10, "MI": 2**20, "GI": 2**30}
SMALLEST_PART = 1000
#: Of Red Hat Enterprise Linux 9; Debian 12 and Ubuntu 22.04 are newer, and Debian 12's programs need it too.
GLIBC = "2_34"


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]I?)?B?", text.upper())
    size = int(match[1]) * UNITS[match[2] or ""] if match else 0
    if size < SMALLEST_PART:
        raise argparse.ArgumentTypeError(f"{text!r}: give a size as 60M (million bytes) or 1Gi, 1K at least")
    return size


def _say(line: str) -> None:
    say(f"   {line}")


def _pack(arguments: argparse.Namespace) -> None:
    from local.bundle.pack import Order, pack
    from local.up import uv_program

    server = "" if arguments.server == "none" else arguments.server
    order = Order(
        out=arguments.out,
        python=arguments.python,
        platform=arguments.platform,
        server=server,
        part_size=arguments.part_size,
        present=arguments.present,
        extra=tuple(arguments.tool),
    )
    print(f"── a bundle for Python {order.python} on {order.platform}", flush=True)
    made = pack(order, uv_program(), _say)
    for component in made.components:
        left_out = f", without {len(component.present)} that the target has" if component.present else ""
        sizes = f"{component.size / 1e6:7.1f} MB packed, {component.unpacked / 1e6:7.0f} MB"
        _say(f"{component.name:8} {sizes} in {component.files} files{left_out}")
    total = sum(part.size for part in made.parts)
    _say(f"{order.out}: {len(made.parts)} parts, {total / 1e6:.1f} MB; glibc {made.glibc} or newer")
    _say(f"there, in a checkout of this commit: make up BUNDLE={order.out.name}")


def _unpack(arguments: argparse.Namespace) -> None:
    from local.bundle.unpack import unpack

    print(f"── bundle {arguments.folder}", flush=True)
    unpack(arguments.folder, _say)


def _finish(arguments: argparse.Namespace) -> None:
    from local.instance import cache_root
    from local.servers.environment import finish

    finish(arguments.kind, cache_root(), _say)


def _check(_: argparse.Namespace) -> None:
    from local.bundle.unpack import check

    check()


def main() -> int:
    """Run one command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m local.bundle", description=__doc__)
    commands = parser.add_subparsers(required=True)
    pack = commands.add_parser("pack", help="make a bundle")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    pack.add_argument("--out", type=Path, default=Path("bundle"), help="its folder (default: bundle)")
    pack.add_argument("--python", default=here, help=f"the target's, MAJOR.MINOR (default: {here})")
    default = f"{platform.machine()}-manylinux_{GLIBC}"
    pack.add_argument("--platform", default=default, help=f"the target's (default: {default})")
    pack.add_argument(
        "--server", default="vllm", help="vllm, vllm-cuda, transformers or none (default: vllm)"
    )
    pack.add_argument("--part-size", type=_size, default=_size("1G"), help="of a part at most (default: 1G)")
    pack.add_argument("--present", type=Path, help="`pip freeze` of the target: what it has is left out")
    pack.add_argument("--tool", action="append", default=[], help="one more: cosign, helm, …")
    pack.set_defaults(run=_pack)
    unpack = commands.add_parser("unpack", help="unpack it here")
    unpack.add_argument("folder", type=Path)
    unpack.set_defaults(run=_unpack)
    finish = commands.add_parser("finish", help="make an unpacked model server ready (`unpack` runs this)")
    finish.add_argument("kind")
    finish.set_defaults(run=_finish)
    check = commands.add_parser("check", help="look whether .venv is still that of requirements.lock")
    check.set_defaults(run=_check)
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except (InputError, BundleError, subprocess.CalledProcessError, OSError) as error:
        print(f"error: {in_words(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
