"""Runs one Pulumi program in an interpreter of its own, on behalf of the stand-in language host.

It does what the official host's `pulumi-language-python-exec` does, so that a program sees no difference:
configuration comes through the environment, a `pulumi.RunError` prints its message and ends with 1, any
other exception prints the traceback from the program's first frame on and ends with 32, which tells the
host that the user has seen the reason. Imports nothing of this package: it may run in another environment.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import runpy
import signal
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# The official host's code for "the user was shown what is wrong": the engine then adds nothing to it.
REASON_WAS_SHOWN = 32


def main(arguments: list[str]) -> int:
    """Run the program that the arguments name; returns the exit code for the host."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("project", "stack", "organization", "root-directory", "monitor", "engine", "parallel"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--host-pipe", type=int, help="descriptor that reaches its end when the host is gone")
    parser.add_argument("program")
    parser.add_argument("args", nargs="*")
    options = parser.parse_args(arguments)

    # The host asks for an end with SIGINT (the engine signals the whole process group): leave, no traceback.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    if options.host_pipe is not None:
        _end_with(options.host_pipe)

    try:
        import pulumi
        import pulumi.runtime
    except ImportError:
        traceback.print_exc()
        print(
            f"The Pulumi SDK cannot be imported by {sys.executable}. "
            "fix: run `make` in the project, which installs the pinned packages into .venv",
            file=sys.stderr,
        )
        return 1

    pulumi.runtime.set_all_config(
        pulumi.runtime.get_config_env(), pulumi.runtime.get_config_secret_keys_env()
    )
    parallel = int(options.parallel or 0)
    pulumi.runtime.configure(
        pulumi.runtime.Settings(
            project=options.project,
            stack=options.stack,
            organization=options.organization,
            root_directory=options.root_directory,
            monitor=options.monitor,
            engine=options.engine,
            parallel=parallel,
            dry_run=options.dry_run,
        )
    )

    # Futures that nobody awaits are normal in a program that fails half way: not the user's concern.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    executor = ThreadPoolExecutor(max_workers=max(parallel, 1) * 4)
    loop.set_default_executor(executor)

    program = Path(options.program).resolve()
    sys.argv = [options.program, *options.args]
    if program.is_dir() and not (program / "__main__.py").is_file():
        pulumi.log.error(f"unable to find main python program `__main__.py` in `{program}`")
        return REASON_WAS_SHOWN
    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(lambda: _run(options.program)))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return 1
    except Exception as error:
        pulumi.log.error("Program failed with an unhandled exception:\n" + _users_part(error, program))
        return REASON_WAS_SHOWN
    finally:
        executor.shutdown(wait=True)
        loop.close()
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _run(program: str) -> None:
    runpy.run_path(program, run_name="__main__")


def _users_part(error: BaseException, program: Path) -> str:
    """Format the exception without the frames above the program's own first one."""
    frames = traceback.extract_tb(error.__traceback__)
    main_file = program / "__main__.py" if program.is_dir() else program
    for index, frame in enumerate(frames):
        if Path(frame.filename).resolve() == main_file:
            return "".join(traceback.format_exception(error, limit=index - len(frames)))
    return "".join(traceback.format_exception(error))


def _end_with(descriptor: int) -> None:
    """End this process when the host that holds the other end of the pipe is gone, however it went."""

    def wait() -> None:
        os.read(descriptor, 1)
        os._exit(130)

    threading.Thread(target=wait, name="host-watch", daemon=True).start()


if __name__ == "__main__":
    # Started as a file: its folder must not be importable for the program.
    sys.path.pop(0)
    sys.exit(main(sys.argv[1:]))
