"""Whatever the input is: a message with key, value, allowed and fix, or something right; never a traceback.

The number of examples is for a run of the unit tests; `make campaign` asks for thousands (MODELCAR_EXAMPLES).
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import stat
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from components.config.google import GoogleSettings
from components.config.loading import KEYS, OF_STACK
from components.config.models import load_stack
from components.config.stack import Stack
from modelcar import strict_yaml
from modelcar.errors import InputError
from modelcar.lock import Lock
from modelcar.lock_reader import read_lock
from modelcar.paths import is_bad
from modelcar.registry import parse
from modelcar.safetensors_header import BITS, Header, HeaderError, read_header
from modelcar.tiny_model import make_tiny_model
from modelcar.weights import read_weights

PROJECT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = int(os.environ.get("MODELCAR_EXAMPLES", "40"))
many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="MODELCAR_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    database=None,
)

#: Texts that break parsers, templates, shells, YAML, terminals, paths and patterns.
HOSTILE = some.sampled_from(
    [
        *(
            "",
            " ",
            "\x00",
            "\x1b[2J",
            "a\nb: c",
            "{{.Name}}",
            "{{ .Values.x }}",
            "${jndi:x}",
            "$(reboot)",
            "`x`",
        ),
        *(
            "; rm -rf /",
            "' or 1=1",
            '"',
            "../../etc/passwd",
            "/etc/passwd",
            "file:///etc/passwd",
            "-rf",
            "--help",
        ),
        *("!!python/object/apply:os.system [x]", "&a [*a]", "yes", "null", "~", "1e999", "NaN", "-0", "0x10"),
        *("é" * 300, "a" * 5000, "\u202egpj.exe", "\ud7ff\ue000", "١٢", "latest", "x@sha256:" + "0" * 64),
        *("[" * 200, "{" * 200, "9" * 400, "1" + "0" * 5000),
    ]
)
TEXT = HOSTILE | some.text(max_size=40)
JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | TEXT,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
#: Values that a key may have by right, so that cases get past the first checks.
PLAUSIBLE = some.sampled_from(
    [
        *(
            "true",
            "false",
            "0",
            "1",
            "2",
            "64",
            "qwen",
            "tiny-qwen2",
            "auto",
            "Standard",
            "Knative",
            "gitops",
        ),
        *(
            "1Gi",
            "100m",
            "8",
            "localhost:5000/models",
            "europe-docker.pkg.dev/p/r",
            "kserve-demo",
            "Recreate",
        ),
        *('["a"]', '["A=b"]', '[{"name": "a"}, {"name": "b"}]', '{"maxModelLen": 4096}', "{}", "[]"),
        '{"project": "my-project-1", "location": "europe-west4"}',
    ]
)
VALUES = TEXT | PLAUSIBLE | JSON.map(json.dumps)


#: Cases by test, for the report of a campaign.
TRIED: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def told() -> Iterator[None]:
    """Write how many cases there were, where a campaign asks for it."""
    yield
    if path := os.environ.get("MODELCAR_TRIED"):
        Path(path).write_text(json.dumps(TRIED))


@contextlib.contextmanager
def fit_to_print(allowed: type[Exception] = InputError) -> Iterator[None]:
    """Nothing is raised but a refusal that a person can act on, and that a terminal can show."""
    TRIED[os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].partition(" ")[0]] += 1
    raised: Exception | None = None
    try:
        yield
    except (InputError, allowed) as error:
        raised = error
    if isinstance(raised, InputError):
        for problem in raised.problems:
            assert problem.key.strip()
            assert problem.allowed.strip()
            assert problem.fix.strip()
    said = str(raised) if raised else "-"
    assert said
    assert len(said) < 200_000
    acting = [character for character in said if is_bad(character) and character not in "\n\t"]
    assert not acting, f"a terminal would act on {acting!r} in: {said}"


# --- settings ---------------------------------------------------------------------------------------

KEY = some.sampled_from(sorted({*KEYS, *OF_STACK})) | TEXT
ENTRY = some.dictionaries(some.sampled_from(sorted(KEYS)) | TEXT, JSON | PLAUSIBLE, max_size=5)
MODELS = some.lists(ENTRY, max_size=4).map(json.dumps)


@many
@given(some.dictionaries(KEY, VALUES, max_size=6), some.none() | MODELS)
def test_settings(values: dict[str, str], models: str | None) -> None:
    config = {
        "modelcar:registry": "localhost:5000/models",
        "modelcar:model": "tiny-qwen2",
        "modelcar:namespace": "models",
    }
    config |= {f"modelcar:{key}": value for key, value in values.items()}
    if models is not None:
        config["modelcar:models"] = models
    with fit_to_print():
        assert isinstance(load_stack(config, PROJECT), Stack)


def _values_of(model: Any) -> dict[str, Any]:
    return {field.alias or name: None for name, field in model.model_fields.items()}


GOOGLE = some.dictionaries(
    some.sampled_from(sorted(_values_of(GoogleSettings))) | TEXT, JSON | PLAUSIBLE, max_size=6
)


@many
@given(GOOGLE, some.lists(some.dictionaries(TEXT, JSON, max_size=4), max_size=3))
def test_google_settings(values: dict[str, Any], pools: list[dict[str, Any]]) -> None:
    google = {"project": "my-project-1", "location": "europe-west4", "pools": pools, **values}
    config = {
        "modelcar:model": "tiny-qwen2",
        "modelcar:namespace": "models",
        "modelcar:google": json.dumps(google),
    }
    with fit_to_print():
        assert isinstance(load_stack(config, PROJECT), Stack)


# --- locks ------------------------------------------------------------------------------------------

LOCK = PROJECT / "modelcar/models/tiny-qwen2/model.lock"


def _places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(document, dict):
        for key, value in document.items():
            found += _places(value, (*path, key))
    elif isinstance(document, list):
        for number, value in enumerate(document):
            found += _places(value, (*path, number))
    return found


PLACES = _places(yaml.safe_load(LOCK.read_text()))[1:]


def lock_of(content: bytes) -> None:
    """Read a lock, which is either refused in words or holds what every reader relies on."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some" / "model.lock"
        path.parent.mkdir()
        path.write_bytes(content)
        with fit_to_print():
            lock = read_lock(path)
            assert isinstance(lock, Lock)
            assert lock.total_size == sum(file.size for file in lock.files)
            for file in lock.files:
                parts = Path(file.path).parts
                assert not Path(file.path).is_absolute()
                assert ".." not in parts


@many
@given(some.lists(some.tuples(some.sampled_from(PLACES), JSON | TEXT), min_size=1, max_size=3))
def test_a_lock_with_other_values(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    document = copy.deepcopy(yaml.safe_load(LOCK.read_text()))
    for path, value in changes:
        place = document
        try:
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = value
        except (TypeError, KeyError, IndexError):
            continue  # an earlier change took the place away
    lock_of(yaml.safe_dump(document, allow_unicode=True).encode())


@many
@given(some.data())
def test_a_lock_with_other_bytes(data: some.DataObject) -> None:
    content = bytearray(LOCK.read_bytes())
    for _ in range(data.draw(some.integers(1, 5))):
        at = data.draw(some.integers(0, len(content) - 1))
        content[at : at + data.draw(some.integers(0, 30))] = data.draw(some.binary(max_size=30))
    lock_of(bytes(content))


@many
@given(some.binary(max_size=300) | TEXT.map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_as_yaml(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.yaml"
        path.write_bytes(content)
        with fit_to_print():
            strict_yaml.read(path, "a lock", "write it again")


# --- safetensors ------------------------------------------------------------------------------------

DTYPES = some.sampled_from(["F32", "BF16", "I8", "BOOL", "F64", "F4", "F99", "", 7, None])
SIZES = some.lists(some.integers(0, 5) | some.sampled_from([-1, 2**63, 2**64, 1.5, "3"]), max_size=3)
TENSOR = some.fixed_dictionaries(
    {"dtype": DTYPES, "shape": SIZES, "data_offsets": some.lists(some.integers(-1, 60), max_size=3)}
)


def header_of(content: bytes) -> Header | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(content)
        with fit_to_print(HeaderError):
            return read_header(path)
    return None


def reference(content: bytes) -> bool:
    """Tell whether the format's reference reader takes it."""
    try:
        safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except Exception:  # its own kind, and some of Python's
        return False
    return True


def build(entries: Any, data: int, length: int | None = None) -> bytes:
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(data)


@many
@given(
    some.dictionaries(some.text(max_size=5), TENSOR | JSON, max_size=4),
    some.integers(0, 80),
    some.none() | some.integers(0, 2**64 - 1),
)
def test_any_header(entries: dict[str, Any], data: int, length: int | None) -> None:
    content = build(entries, data, length)
    found = header_of(content)
    if found is not None and found.dtypes <= BITS.keys() and "__metadata__" not in entries:
        assert reference(content), f"taken here, and not by the reference reader: {content!r}"


@many
@given(some.lists(some.tuples(some.sampled_from(["F32", "BF16", "I8", "F64"]), some.lists(some.integers(0, 4), max_size=3)), max_size=4))  # fmt: skip  # noqa: E501
def test_every_whole_file_is_taken(tensors: list[tuple[str, list[int]]]) -> None:
    entries, reached = {}, 0
    for number, (dtype, shape) in enumerate(tensors):
        count = 1
        for size in shape:
            count *= size
        end = reached + count * BITS[dtype] // 8
        entries[f"t{number}"] = {"dtype": dtype, "shape": shape, "data_offsets": [reached, end]}
        reached = end
    content = build(entries, reached)
    assert reference(content)
    assert header_of(content) is not None
    for cut in range(1, min(reached, 20) + 1):
        assert header_of(content[:-cut]) is None, "cut off, and taken"


@many
@given(some.binary(max_size=200))
def test_any_bytes_as_a_header(content: bytes) -> None:
    if header_of(content) is not None:
        assert reference(content)


# --- folders of weights -----------------------------------------------------------------------------

NAMES = some.sampled_from(
    [
        *(
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "model-00001-of-00002.safetensors",
            "a/b.json",
        ),
        *(
            "model.safetensors.index.json",
            "pytorch_model.bin",
            "x.part",
            ".git/config",
            ".wh.config.json",
            "A/B",
        ),
        *(
            "generation_config.json",
            "adapter_config.json",
            "sub/config.json",
            "\x1b[1m.json",
            "é.txt",
            "e\u0301.txt",
        ),
    ]
)
CONTENTS = some.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())
FILES = some.dictionaries(NAMES, CONTENTS, max_size=6)
LINKS = some.dictionaries(
    NAMES,
    some.sampled_from(
        ["/etc/passwd", "../outside", "config.json", ".", "..", "nowhere", "self", "model.safetensors"]
    ),
    max_size=3,
)


@many
@given(FILES, LINKS, some.booleans(), some.booleans())
def test_any_folder(files: dict[str, bytes], links: dict[str, str], real: bool, pipe: bool) -> None:
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "outside").write_text("a secret of somebody")
        folder = Path(place) / "weights"
        if real:
            make_tiny_model(folder)
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            with contextlib.suppress(OSError):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        for name, target in links.items():
            with contextlib.suppress(OSError):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).unlink(missing_ok=True)
                (folder / name).symlink_to(target)
        if pipe:
            os.mkfifo(folder / "pipe.json")
        with fit_to_print():
            weights = read_weights(folder)
            assert not pipe, "a pipe was taken for a file: reading it never ends"
            for file in weights.files:
                assert stat.S_ISREG(file.source.stat().st_mode)
                assert file.source.is_relative_to(folder.resolve()), "a file from outside of the folder"


# --- references to images ---------------------------------------------------------------------------


@many
@given(TEXT | some.from_regex(r"[a-z0-9./:@-]{1,80}", fullmatch=True))
def test_any_reference(text: str) -> None:
    with fit_to_print():
        target, rest = parse(text)
        assert target
        assert rest


@pytest.mark.parametrize("bomb", ["a: " + "[" * 100_000, "a: &x [1,2]\nb: *x\n" * 10, "? " * 50_000])
def test_small_files_that_grow(bomb: str) -> None:
    lock_of(bomb.encode())
