"""Check the header of a safetensors file without reading its data.

Source of the rules: the format's own description (https://github.com/huggingface/safetensors#format):
eight bytes with the header's length, a JSON header, then the tensors, which cover the rest of the file
without holes or overlaps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Bytes; the limit of the format's reference reader.
MAX_HEADER = 100_000_000

#: Bits of one number of each type. A type that is not here is accepted, and its size not checked.
BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
BITS |= dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8)
BITS |= dict.fromkeys(("I16", "U16", "F16", "BF16"), 16)
BITS |= dict.fromkeys(("I32", "U32", "F32"), 32)
BITS |= dict.fromkeys(("I64", "U64", "F64", "C64"), 64)


class HeaderError(Exception):
    """The header breaks a rule of the format; the message says which, with the values found."""


@dataclass(frozen=True)
class Header:
    """What a header says: how many numbers of which type, and the names of the tensors."""

    tensors: frozenset[str]
    numbers: int
    dtypes: frozenset[str]


def read_header(path: Path, *, offset: int = 0, size: int | None = None) -> Header:
    """Read and check the header of one file. Reads the header's bytes only, at most MAX_HEADER.

    Args:
        path: the file, or one that holds it.
        offset: bytes before it.
        size: its bytes; None for all that there are.

    Raises:
        HeaderError: the file is not a whole safetensors file.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if size is None:
            size = file.seek(0, 2) - offset
        file.seek(offset)
        if size < 8:
            raise HeaderError(f"{size} bytes, too short for the header's length (8 bytes)")
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            raise HeaderError(f"the header's length is given as {length} bytes, above {MAX_HEADER}")
        if 8 + length > size:
            raise HeaderError(f"the header would end at byte {8 + length}, the file has {size} bytes")
        content = file.read(length)
    try:
        entries = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"the header is not JSON ({error})") from None
    if not isinstance(entries, dict):
        raise HeaderError("the header is not a JSON object")
    entries.pop("__metadata__", None)
    return _check(entries, size - 8 - length)


def _check(entries: Mapping[str, Any], data: int) -> Header:
    spans = []
    numbers = 0
    for name, entry in entries.items():
        begin, end, count = _tensor(name, entry)
        spans.append((begin, end, name))
        numbers += count
    reached = 0
    for begin, end, name in sorted(spans):
        if end > data:
            raise HeaderError(
                f"tensor {name!r} ends at byte {end} of the data, the file holds {data}: it is cut off"
            )
        if begin != reached:
            fault = "overlaps the tensor before it" if begin < reached else "leaves a hole before it"
            raise HeaderError(f"tensor {name!r} begins at byte {begin} and {fault} (byte {reached})")
        reached = end
    if reached != data:
        raise HeaderError(f"the tensors end at byte {reached} of the data, the file holds {data}")
    return Header(frozenset(entries), numbers, frozenset(entry["dtype"] for entry in entries.values()))


def _tensor(name: str, entry: object) -> tuple[int, int, int]:
    """Return where one tensor begins and ends in the data, and how many numbers it has."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        raise HeaderError(f"tensor {name!r} has no dtype")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not _counts(shape):
        raise HeaderError(f"tensor {name!r} has the shape {shape!r}, not a list of sizes")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise HeaderError(f"tensor {name!r} has the data_offsets {offsets!r}, not [begin, end]")
    count = math.prod(shape)
    if count >= 2**64:
        raise HeaderError(f"tensor {name!r} has more numbers than any file")
    bits = BITS.get(entry["dtype"])
    if bits is not None and count * bits != 8 * (offsets[1] - offsets[0]):
        raise HeaderError(
            f"tensor {name!r} of shape {shape} and type {entry['dtype']} needs {count * bits // 8} bytes, "
            f"its data_offsets hold {offsets[1] - offsets[0]}"
        )
    return offsets[0], offsets[1], count


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
