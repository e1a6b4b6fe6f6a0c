"""Compiled kernels that travel with a model: what vLLM compiled at a start, as one more layer of its image.

A server's caches are code: pickles and machine code. They are never read here, only packed, told by digest,
and unpacked again to be compared. An entry says what it is good for; vLLM's own keys decide the rest.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import zstandard

from modelcar.errors import InputError, Problem, refuse
from modelcar.layer_format import MODELS, layer_parts, layer_size
from modelcar.manifest import sha256_digest, to_json
from modelcar.paths import fault_of_name, is_bad, printable
from modelcar.tar_members import READ_ERRORS, is_plain, require_sized

#: Folder of all kernels in the model's folder; with its dot no loader takes it for a part of the model.
FOLDER = ".kernels"
#: File of an entry that says what it is good for; a pod's shell reads it.
FITS = "fits"
#: File of an entry with the times of files that are only used with them.
TIMES = "times"
#: Part whose files have times: ninja, which FlashInfer builds with at each start, goes by them.
TIMED = "flashinfer"
#: Folders below an entry: vLLM's own cache, Triton's, Inductor's and FlashInfer's.
PARTS = ("vllm", "triton", "torchinductor", "flashinfer")

#: Of zstd. Kernels are small and packed once, and repeat themselves far apart: a level with a large window.
LEVEL = 19
#: Bytes. A model of 7B has 30 MB of them, 2 MB in its layer; a registry's blobs are read up to 16 MiB.
MOST_UNPACKED, MOST_PACKED = 512 * 2**20, 16 * 2**20
#: Entries of one lock: kinds of GPU, releases of the server and sets of arguments.
MOST_ENTRIES = 32

#: Files of a model that what is compiled depends on; weights of other values need no other kernels.
CONFIGS = frozenset({"config.json", "hf_quant_config.json", "quantize_config.json", "quant_config.json"})

KINDS = ("gpu", "cpu")
_SERVER = re.compile(r"sha256:[0-9a-f]{64}|local:[0-9a-f]{16}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CAPABILITY = {"gpu": re.compile(r"\d{1,2}\.\d"), "cpu": re.compile(r"[0-9a-f]{12}")}
_VERSION = re.compile(r"[0-9A-Za-z.+_-]{1,64}")
_DRIVER = re.compile(r"[0-9.]{0,32}")


def basis(sha256: Mapping[str, str]) -> str:
    """Return a digest of what kernels depend on in a model; sha256: of its files, by path."""
    told = sorted((path, digest) for path, digest in sha256.items() if path in CONFIGS)
    return hashlib.sha256(to_json(told)).hexdigest()


def is_kernels(path: str) -> bool:
    """Tell whether a file would lie where only kernels of a stack's own pods may."""
    return FOLDER in path.split("/")


@dataclass(frozen=True)
class Target:
    """What kernels are good for.

    server: digest of the server's image (`sha256:…`); of a server that is mounted from its machine
        `local:` and 16 digits. A pod is told its own.
    kind: gpu or cpu.
    device: the card's name, as nvidia-smi tells it; the processor's.
    capability: the card's compute capability (9.0); of a processor 12 digits of its instruction sets.
    count: cards of the pod, so ranks.
    arguments: of the server, those that enter vLLM's key, and variables that do (`VLLM_…=…`).
    """

    server: str
    kind: str
    device: str
    capability: str
    count: int
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """Folder of the entry: of the same target the same, of any other another."""
        told = re.sub(r"[^a-z0-9]+", "-", self.device.lower()).strip("-")[:40].strip("-") or self.kind
        digest = hashlib.sha256(to_json([*asdict(self).values()])).hexdigest()[:8]
        return f"{told}-x{self.count}-{digest}"

    @property
    def place(self) -> str:
        """What a pod finds out of itself, in one line, as its shell writes it."""
        return f"{self.kind} {self.capability} x{self.count} {self.device}"

    @property
    def fits(self) -> bytes:
        """Content of the entry's file for the pod's shell."""
        return f"server {self.server}\ndevice {self.place}\n".encode()


@dataclass(frozen=True)
class Kernels:
    """An entry of a lock: a layer of kernels, and what it is good for.

    digest, size (bytes): of the layer as it is pushed. diff_id: of the layer unpacked.
    vllm, torch: their versions. driver: of the card, where it was compiled; told, and nothing depends on it.
    """

    target: Target
    digest: str
    size: int
    diff_id: str
    vllm: str
    torch: str
    driver: str = ""

    @property
    def name(self) -> str:
        """Folder of the entry in the image."""
        return self.target.name


def document(entry: Kernels) -> dict[str, Any]:
    """Return an entry as a lock has it."""
    target = entry.target
    return {
        "name": entry.name,
        "digest": entry.digest,
        "size": entry.size,
        "diffId": entry.diff_id,
        "server": target.server,
        "vllm": entry.vllm,
        "torch": entry.torch,
        "kind": target.kind,
        "device": target.device,
        "capability": target.capability,
        "count": target.count,
        "driver": entry.driver,
        "arguments": list(target.arguments),
    }


_KEYS = (
    *("name", "digest", "size", "diffId", "server", "vllm", "torch", "kind", "device", "capability"),
    *("count", "driver", "arguments"),
)


def read_entries(entries: Any) -> tuple[tuple[Kernels, ...], list[tuple[str, str, str]]]:
    """Return the entries of a lock's `kernels`, and what is wrong: key, what was found, what is allowed."""
    if not isinstance(entries, list) or not 0 < len(entries) <= MOST_ENTRIES:
        shown = f"{len(entries)} entries" if isinstance(entries, list) else type(entries).__name__
        return (), [("kernels", shown, f"a list of 1 to {MOST_ENTRIES} entries, or no such key")]
    found: list[Kernels] = []
    wrong: list[tuple[str, str, str]] = []
    for number, entry in enumerate(entries):
        faults = list(_faults(entry))
        wrong += [(f"kernels[{number}]{key}", value, allowed) for key, value, allowed in faults]
        if not faults:
            found.append(_entry(entry))
            if entry["name"] != found[-1].name:
                allowed = f"{found[-1].name}, which follows from what it is good for"
                wrong.append((f"kernels[{number}].name", repr(entry["name"]), allowed))
    names = [entry.name for entry in found]
    if not wrong and names != sorted(set(names)):
        wrong.append(("kernels", "not sorted by name, or a name twice", "each name once, sorted"))
    digests = [entry.digest for entry in found]
    if not wrong and len(set(digests)) < len(digests):
        wrong.append(("kernels", "a digest twice", "each layer once"))
    return tuple(found), wrong


def _faults(entry: Any) -> Iterator[tuple[str, str, str]]:
    if not isinstance(entry, dict):
        yield "", repr(entry), f"a mapping with {', '.join(_KEYS)}"
        return
    if unknown := sorted(entry.keys() - set(_KEYS)):
        yield "", f"unknown key {unknown[0]}", ", ".join(_KEYS)
    if missing := [key for key in _KEYS if key not in entry]:
        yield "", f"lacks {', '.join(missing)}", ", ".join(_KEYS)
        return
    kind = entry["kind"]
    if kind not in KINDS:
        yield ".kind", repr(kind), " or ".join(KINDS)
        kind = "gpu"
    texts = {
        "digest": (_DIGEST, "sha256: and 64 hexadecimal digits"),
        "diffId": (_DIGEST, "sha256: and 64 hexadecimal digits"),
        "server": (_SERVER, "the digest of the server's image, or local: and 16 hexadecimal digits"),
        "vllm": (_VERSION, "a version"),
        "torch": (_VERSION, "a version"),
        "capability": (
            _CAPABILITY[kind],
            "a compute capability such as '9.0'" if kind == "gpu" else "12 hexadecimal digits",
        ),
        "driver": (_DRIVER, "a version, or ''"),
    }
    for key, (pattern, allowed) in texts.items():
        if not isinstance(entry[key], str) or not pattern.fullmatch(entry[key]):
            yield f".{key}", repr(entry[key]), allowed
    if not _is_line(entry["device"], 120):
        yield ".device", repr(entry["device"]), "the name of a GPU or processor, one line"
    size, count, arguments = entry["size"], entry["count"], entry["arguments"]
    if type(size) is not int or not 0 < size <= MOST_PACKED:
        yield ".size", repr(size), f"bytes, 1 to {MOST_PACKED}"
    if type(count) is not int or not 1 <= count <= 64:
        yield ".count", repr(count), "1 to 64"
    if not isinstance(arguments, list) or not all(_is_line(text, 1000) for text in arguments):
        yield ".arguments", repr(arguments), "a list of texts of one line"


def _is_line(value: object, longest: int) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= longest
        and value == value.strip()
        and "  " not in value
        and not any(is_bad(character) for character in value)
    )


def _entry(entry: Mapping[str, Any]) -> Kernels:
    target = Target(
        entry["server"],
        entry["kind"],
        entry["device"],
        entry["capability"],
        entry["count"],
        tuple(entry["arguments"]),
    )
    return Kernels(
        target,
        entry["digest"],
        entry["size"],
        entry["diffId"],
        entry["vllm"],
        entry["torch"],
        entry["driver"],
    )


def with_entry(entries: Sequence[Kernels], new: Kernels) -> tuple[Kernels, ...]:
    """Return a lock's entries with one more; one for the same target is replaced."""
    others = [entry for entry in entries if entry.name != new.name]
    return tuple(sorted([*others, new], key=lambda entry: entry.name))


# --- the layer --------------------------------------------------------------------------------------


def pack(
    target: Target, files: Mapping[str, bytes], times: Mapping[str, int] | None = None
) -> tuple[bytes, str]:
    """Return the layer of kernels, and its digest unpacked. The same files give the same bytes.

    Args:
        target: what they are good for.
        files: content by path, the first part of which is one of PARTS.
        times: of files, in seconds since 1970; only those of TIMED are kept.

    Raises:
        InputError: there are none, they are too many bytes, or a name cannot be in an image.
    """
    contents = {FITS: target.fits, **files}
    if timed := [path for path in sorted(times or {}) if path in files and path.startswith(f"{TIMED}/")]:
        contents[TIMES] = "".join(f"{(times or {})[path]} {path}\n" for path in timed).encode()
    named = {f"{FOLDER}/{target.name}/{path}": content for path, content in contents.items()}
    problems = [
        Problem(path, fault[0], fault[1], "remove the server's cache, and start it again")
        for path in sorted(named)
        if (fault := fault_of_name(path))
    ]
    if problems:
        raise InputError(problems)
    sized = [(path, len(content)) for path, content in sorted(named.items())]
    if not files or (total := layer_size(sized)) > MOST_UNPACKED:
        found = f"{total} bytes in {len(files)} files" if files else "no file of compiled code"
        fix = "serve without --enforce-eager, and clear the server's cache before"
        raise refuse("kernels", found, allowed=f"compiled kernels, at most {MOST_UNPACKED} bytes", fix=fix)
    layer = b"".join(part if isinstance(part, bytes) else named[part[0]] for part in layer_parts(sized))
    packed = zstandard.ZstdCompressor(level=LEVEL).compress(layer)
    if len(packed) > MOST_PACKED:
        found = f"{len(packed)} bytes compressed"
        fix = "leave it out: --enforce-eager for this model, or fewer capture sizes"
        raise refuse("kernels", found, allowed=f"at most {MOST_PACKED} bytes", fix=fix)
    return packed, sha256_digest(layer)


def fault_of_layer(entry: Kernels, content: bytes) -> str | None:
    """Return what is wrong with a layer that is said to be an entry's; None where it is that layer.

    It holds nothing but the entry's own folder, and what a pod's shell reads in it is what the lock says.
    """
    digest = sha256_digest(content)
    if digest != entry.digest or len(content) != entry.size:
        return f"{len(content)} bytes, {digest}"
    layer = unpacked(content)
    if layer is None or sha256_digest(layer) != entry.diff_id:
        return "a layer that unpacks to another one than the lock says"
    try:
        return _fault_of_files(entry, layer)
    except READ_ERRORS as error:
        return f"a layer that cannot be read ({type(error).__name__})"


def _fault_of_files(entry: Kernels, layer: bytes) -> str | None:
    own = f"{MODELS}/{FOLDER}/{entry.name}"
    above = {MODELS, f"{MODELS}/{FOLDER}", own}
    fits = b""
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        for member in archive:
            require_sized(member)
            if member.isdir() and (member.name in above or member.name.startswith(f"{own}/")):
                continue
            if not is_plain(member) or not member.name.startswith(f"{own}/") or fault_of_name(member.name):
                return f"a layer with {printable(member.name)}, which is no file of {own}"
            if member.name == f"{own}/{FITS}" and (file := archive.extractfile(member)):
                fits = file.read()
    return None if fits == entry.target.fits else f"a layer whose {FITS} is not what the lock says"


def unpacked(content: bytes) -> bytes | None:
    """Return a layer uncompressed; None where it is damaged, or larger than any of kernels is."""
    try:
        with zstandard.ZstdDecompressor().stream_reader(content) as stream:
            layer: bytes = stream.read(MOST_UNPACKED + 1)
    except zstandard.ZstdError:
        return None
    return layer if len(layer) <= MOST_UNPACKED else None
