"""Whether a pod used the kernels of its image: by the start script's line and vLLM's own log, together."""

from __future__ import annotations

import pytest

from components.manifests.kernels import NONE, OFF, SAID, UNUSED, USED
from operations.kernel_use import KernelUse, describe, document, fix, kernel_use
from operations.server_phases import compile_cache

#: Lines of vLLM 0.23.0: compilation/decorators.py and backends.py.
LOADED = (
    "(EngineCore pid=84) INFO 11-28 16:48:10 [decorators.py:311] Directly load AOT compilation from path /x"
)
SAVED = "(EngineCore pid=84) INFO 11-28 16:48:30 [decorators.py:708] saved AOT compiled function to /x"
DYNAMO = "(EngineCore pid=84) INFO 11-28 16:48:10 [backends.py:1148] Dynamo bytecode transform time: 3.1 s"
COMPILED = "(EngineCore pid=84) INFO 11-28 16:48:20 [backends.py:393] Compiling a graph for compile range (1,"
GRAPHS = (
    "(EngineCore pid=84) INFO 11-28 16:48:20 [backends.py:290] Directly load the compiled graph(s) for "
    "compile range (1, 8192) from the cache, took 0.5 s"
)
REFUSED = (
    "(Worker pid=9) WARNING 11-28 20:16:05 [decorators.py:321] Compiling model again due to a load "
    "failure from /x/rank_0_0/model, reason: Source code has changed since the last compilation."
)
NAME = "nvidia-h100-80gb-hbm3-x1-01234567"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([LOADED], "hit"),
        ([DYNAMO, GRAPHS, LOADED], "hit"),  # on a GPU: its graphs are put together out of the loaded model
        ([DYNAMO, LOADED, COMPILED], "part"),
        ([LOADED, SAVED], "part"),  # another rank's
        ([DYNAMO], "miss"),
        ([DYNAMO, GRAPHS], "part"),
        ([DYNAMO, SAVED], "miss"),
        ([SAVED], "miss"),
        ([], None),
    ],
)
def test_vllms_own_lines_tell_hit_part_and_miss(lines: list[str], found: str | None) -> None:
    assert compile_cache("\n".join(lines)) == (found, "")


@pytest.mark.parametrize(
    ("said", "lines", "missed", "told"),
    [
        (f"{USED} {NAME}", [LOADED], False, "the server loaded its compiled model"),
        (f"{USED} {NAME}", [DYNAMO, SAVED], True, "arguments, variables or versions differ"),
        (f"{USED} {NAME}", [REFUSED, SAVED], True, "because: Source code has changed"),
        (f"{USED} {NAME}", [], True, "the server compiled nothing"),
        (f"{UNUSED}: {NAME} is for another server image", [SAVED], True, "another server, GPU or place"),
        (NONE, [SAVED], False, NONE),
        (OFF, [SAVED], False, OFF),
        (None, [LOADED], False, "not known"),
    ],
)
def test_a_start_is_told_with_what_to_do_about_a_miss(
    said: str | None, lines: list[str], missed: bool, told: str
) -> None:
    log = "\n".join(["waiting for /mnt/models", *([f"{SAID}{said}"] if said else []), *lines])
    use = kernel_use(log)
    assert use is not None
    assert use.missed is missed
    assert told in f"{describe(use)} {fix(use, 'make kernels STACK=dev')}"
    assert ("make kernels STACK=dev" in fix(use, "make kernels STACK=dev")) is missed


def test_a_log_of_another_server_tells_nothing() -> None:
    assert kernel_use("INFO started\n") is None
    assert document(None) is None


def test_lines_with_the_api_servers_time_are_read_too() -> None:
    use = kernel_use(f"2026-11-28T20:16:05.123Z {SAID}{USED} {NAME}\n2026-11-28T20:16:06Z {LOADED}\n")
    assert use == KernelUse(f"{USED} {NAME}", "hit")
    assert document(use) == {
        **{"said": f"{USED} {NAME}", "cache": "hit", "reason": ""},
        **{"used": True, "missed": False},
    }
