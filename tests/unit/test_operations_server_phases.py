"""A GPU server's phases, from lines as vLLM 0.23.0 prints them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest

from operations.server_phases import MARKS, Phase, lines_of, server_phases

CONFIG = (
    "Initializing a V1 LLM engine (v0.23.0) with config: model='/mnt/models', speculative_config=None, "
    "tokenizer='/mnt/models', dtype=torch.bfloat16, max_seq_len=4096, tensor_parallel_size=1, "
    "enforce_eager=False, kv_cache_dtype=auto, device_config=cuda, seed=0"
)
COMPILED = [
    (88.0, "(EngineCore pid=84)", "[backends.py:1148]", "Dynamo bytecode transform time: 5.60 s"),
    (
        95.0,
        "(EngineCore pid=84)",
        "[backends.py:393]",
        "Compiling a graph for compile range (1, 8192) takes 9.38 s",
    ),
    (95.4, "(EngineCore pid=84)", "[monitor.py:48]", "torch.compile took 17.61 s in total"),
]
LOADED = [
    # A model that is loaded whole has its graphs put together as after Dynamo (finalize_loading).
    (76.0, "(EngineCore pid=84)", "[backends.py:1148]", "Dynamo bytecode transform time: 0.81 s"),
    (
        60.0,
        "(EngineCore pid=84)",
        "[decorators.py:311]",
        "Directly load AOT compilation from path /tmp/vllm/torch_compile_cache/torch_aot_compile/d021dd67/"
        "rank_0_0/model",
    ),
    (63.0, "(EngineCore pid=84)", "[monitor.py:48]", "torch.compile took 2.90 s in total"),
]
#: Seconds after the start, process, place, message.
Said = tuple[float, str, str, str]
BEGIN: list[Said] = [
    (27.25, "(APIServer pid=1)", "[api_utils.py:273]", "non-default args: {'port': 8080}"),
    (50.0, "(APIServer pid=1)", "[model.py:611]", "Resolved architecture: Qwen2ForCausalLM"),
    (50.1, "(APIServer pid=1)", "[model.py:1745]", "Using max model len 4096"),
    (70.0, "(EngineCore pid=84)", "[core.py:113]", CONFIG),
    (74.5, "(EngineCore pid=84)", "[default_loader.py:397]", "Loading weights took 0.70 seconds"),
    (
        75.0,
        "(EngineCore pid=84)",
        "[gpu_model_runner.py:5187]",
        "Model loading took 0.93 GiB memory and 1.204321 seconds",
    ),
]
END: list[Said] = [
    (97.0, "(EngineCore pid=84)", "[monitor.py:81]", "Initial profiling/warmup run took 0.41 s"),
    (99.0, "(EngineCore pid=84)", "[gpu_worker.py:480]", "Available KV cache memory: 70.41 GiB"),
    (99.2, "(EngineCore pid=84)", "[kv_cache_utils.py:1744]", "GPU KV cache size: 6,152,432 tokens"),
    (
        116.0,
        "(EngineCore pid=84)",
        "[gpu_model_runner.py:6585]",
        "Graph capturing finished in 15 secs, took 0.41 GiB",
    ),
    (
        117.0,
        "(EngineCore pid=84)",
        "[core.py:306]",
        "init engine (profile, create kv cache, warmup model) took 42.01 s (compilation: 17.61 s)",
    ),
    (118.4, "(APIServer pid=1)", "[api_server.py:583]", "Starting vLLM server on http://0.0.0.0:8080"),
]
BEGAN = datetime.fromisoformat("2026-11-28T16:40:00+00:00")


def log(said: list[Said], *, stamped: bool = True) -> str:
    """Return a log as the API server gives it, or as it was printed."""
    lines = [(0.0, "waiting for /mnt/models"), (0.0, "/mnt/models is there")]
    for seconds, process, place, message in said:
        printed = (BEGAN + timedelta(seconds=seconds)).strftime("%m-%d %H:%M:%S")
        lines.append((seconds, f"{process} INFO {printed} {place} {message}"))
    lines.append((118.6, "(APIServer pid=1) INFO:     Started server process [1]"))
    lines.append((118.6, "(APIServer pid=1) INFO:     Application startup complete."))
    lines.append((300.0, "(APIServer pid=1) INFO 11-28 16:45:00 [x.py:1] non-default args: never again"))
    return "".join(
        (f"{(BEGAN + timedelta(seconds=seconds)).isoformat()}012Z ".replace("+00:00012Z", "Z")) * stamped
        + f"{line}\n"
        for seconds, line in lines
    )


def seconds(phases: tuple[Phase, ...]) -> dict[str, float]:
    return {phase.name: round(phase.seconds, 2) for phase in phases}


def test_a_cold_start_has_all_phases_and_they_add_up() -> None:
    found = server_phases(log([*BEGIN, *COMPILED, *END]), BEGAN)
    assert seconds(found) == {
        "imports": 27.25,
        "class": 22.75,
        "engine": 20.0,
        "weights": 5.0,
        "compile": 20.4,
        "profiling": 3.8,
        "graphs": 16.8,
        "ready": 2.6,
    }
    assert sum(phase.seconds for phase in found) == pytest.approx(118.6)
    assert {phase.name: phase.cache for phase in found if phase.cache} == {"compile": "miss"}
    assert {phase.name: phase.read for phase in found if phase.read} == {"weights": 0.7}
    lines = list(lines_of(found))
    assert lines[3].split() == ["weights", "5.0", "s", "files", "read", "in", "0.7", "s"]
    assert lines[4].split() == ["compile", "20.4", "s", "not", "in", "the", "cache"]


GRAPHS = (
    62.0,
    "(EngineCore pid=84)",
    "[backends.py:292]",
    "Directly load the compiled graph(s) for compile range (1, 8192) from the cache, took 1.203 s",
)


@pytest.mark.parametrize(
    ("compiling", "cache"),
    [(COMPILED, "miss"), (LOADED, "hit"), ([COMPILED[0], GRAPHS, COMPILED[2]], "part")],
)
def test_what_the_cache_held_is_told(compiling: list[Said], cache: str) -> None:
    [found] = [
        phase.cache for phase in server_phases(log([*BEGIN, *compiling, *END])) if phase.name == "compile"
    ]
    assert found == cache


def test_a_compiled_model_that_one_rank_lacks_is_partly_in_the_cache() -> None:
    worker = "(Worker_TP1 pid=98)"
    other = [(at, worker, place, message) for at, _, place, message in COMPILED]
    [found] = [phase.cache for phase in server_phases(log([*BEGIN, *LOADED, *other, *END])) if phase.cache]
    assert found == "part"


def test_a_phase_ends_with_the_last_rank() -> None:
    """The second model runner says it on each rank, without "memory"; the first one only on the first."""
    ranks = [
        (
            at,
            f"(Worker_TP{rank} pid={97 + rank})",
            "[model_runner.py:319]",
            "Model loading took 0.48 GiB and 1.1 seconds",
        )
        for rank, at in enumerate((75.0, 79.0))
    ]
    read = [
        (
            74.0 + rank,
            f"(Worker_TP{rank} pid={97 + rank})",
            "[x.py:1]",
            f"Loading weights took {rank}.50 seconds",
        )
        for rank in range(2)
    ]
    found = server_phases(log([*BEGIN[:5], *read, *ranks, *COMPILED, *END]), BEGAN)
    assert seconds(found)["weights"] == 9.0
    assert [phase.read for phase in found if phase.read] == [1.5]


def test_phases_that_a_server_does_not_have_are_left_out() -> None:
    """With enforce-eager nothing is compiled or captured."""
    eager = [*BEGIN, *(line for line in END if "Graph capturing" not in line[3])]
    assert list(seconds(server_phases(log(eager), BEGAN))) == [
        "imports",
        "class",
        "engine",
        "weights",
        "profiling",
        "ready",
    ]


def test_a_server_without_a_gpu_has_none() -> None:
    cpu = [
        (at, process, place, message.replace("device_config=cuda", "device_config=cpu"))
        for at, process, place, message in [*BEGIN, *END]
    ]
    assert server_phases(log(cpu), BEGAN) == ()
    assert server_phases("", BEGAN) == ()


def test_without_the_servers_start_the_first_phase_is_where_the_others_begin() -> None:
    found = seconds(server_phases(log([*BEGIN, *COMPILED, *END])))
    assert "imports" not in found
    assert found["class"] == 22.75


def test_printed_times_serve_where_there_are_no_better_ones() -> None:
    """A log that was not read from the API server; uvicorn's lines have no time at all."""
    found = seconds(server_phases(log([*BEGIN, *COMPILED, *END], stamped=False)))
    assert (found["class"], found["engine"], found["ready"]) == (23.0, 20.0, 2.0)
    since = seconds(server_phases(log([*BEGIN, *COMPILED, *END], stamped=False), BEGAN))
    assert (since["imports"], since["ready"]) == (27.0, 2.0)


def test_a_start_over_new_year_is_no_year_long() -> None:
    text = log([*BEGIN, *COMPILED, *END], stamped=False)
    for before, after in (("11-28 16:40", "12-31 23:59"), ("11-28 16:41", "01-01 00:00")):
        text = text.replace(before, after)
    assert seconds(server_phases(text))["graphs"] == 17.0
    began = datetime.fromisoformat("2026-12-31T23:59:00+00:00")
    assert seconds(server_phases(text.replace("12-31 23:59", "01-01 00:00"), began))["imports"] == 87.0


def test_colours_do_not_hide_a_line() -> None:
    text = re.sub(
        r"INFO (\S+ \S+) ", "\x1b[32mINFO\x1b[0m \x1b[90m\\1\x1b[0m ", log([*BEGIN, *COMPILED, *END])
    )
    assert [phase.name for phase in server_phases(text, BEGAN)] == [name for name, _ in MARKS]
