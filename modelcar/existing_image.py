"""An image that is in a registry already, whoever built it: would KServe serve a model from it?

KServe 0.19 makes two containers of a modelcar (pkg/utils/storage.go): `modelcar-init` runs `sh -c` with `ls`
over /models, and `modelcar` runs `sh -c 'ln -sf /proc/$$/root/models … && sleep infinity'`. It says so as the
containers' `args`, with no `command`: they stand in place of the image's CMD, and come after its ENTRYPOINT.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from modelcar.choosing import PICKLE_SUFFIXES
from modelcar.image import LOCK_ANNOTATION
from modelcar.image_files import ImageFiles
from modelcar.layer_head import CONFIG, PLAIN, read_head
from modelcar.layouts import PARAMS, config_of
from modelcar.manifest import CONFIG_TYPE
from modelcar.paths import printable
from modelcar.registry import Manifest, Registry
from modelcar.registry_http import NoManifestError
from modelcar.side_by_side import Work

#: Programs that KServe's containers run.
PROGRAMS = ("sh", "ls", "ln", "sleep")
#: Entry points that run their arguments, by the program's name.
WRAPPERS = frozenset(
    {"catatonit", "container-entrypoint", "dumb-init", "env", "nvidia_entrypoint.sh", "tini"}
)
#: How much more than their compressed size layers take once they are unpacked, at most: of a bfloat16 number
#: about 10.6 bits of 16 carry information (eight of the mantissa with its sign, 2.6 of the exponent).
UNPACKED = 1.5

#: Types of the configurations of images.
CONFIG_TYPES = frozenset({CONFIG_TYPE, "application/vnd.docker.container.image.v1+json"})
#: What containerd takes for layers of an image (core/images/mediatypes.go, IsLayerType).
_LAYER = re.compile(
    r"application/vnd\.oci\.image\.layer\..*|application/vnd\.docker\.image\.rootfs\.(diff|foreign\.diff)\.tar.*"
)
#: How builders write down that a layer's files are below /models: BuildKit and kaniko; docker's old builder
#: and buildah.
_MODELS_ONLY = re.compile(r"(?:/bin/sh -c #\(nop\) )?(?:COPY|ADD)\s.*\s/models(?:/\S*)?\s*(?:# buildkit)?")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Layers that are read at a time, and at most.
JOBS = 8
MOST_LAYERS = 128


@dataclass(frozen=True)
class Fault:
    """Why an image cannot be served. found, allowed, fix: as in an error."""

    found: str
    allowed: str
    fix: str


@dataclass(frozen=True)
class ExistingImage:
    """An image, as far as a registry tells without pulling it.

    digest: by which it is named; of an index where that is one.
    manifest: of the one image for the nodes' platform. config: its configuration.
    files: what its layers' beginnings have.
    """

    digest: str
    manifest: Mapping[str, Any]
    config: Mapping[str, Any]
    files: ImageFiles

    @property
    def size(self) -> int:
        """Bytes of its layers, as they are pulled."""
        return sum(int(layer["size"]) for layer in self.manifest["layers"])

    @property
    def disk(self) -> float:
        """Bytes of one copy on a node's disk: the mean of what is pulled and what it unpacks to, at most."""
        return sum(
            int(layer["size"]) * (1.0 if layer.get("mediaType") in PLAIN else (1 + UNPACKED) / 2)
            for layer in self.manifest["layers"]
        )

    @property
    def lock_digest(self) -> str:
        """Digest of the lock that it was made from; empty where it does not say, as images of others."""
        return str((self.manifest.get("annotations") or {}).get(LOCK_ANNOTATION, ""))

    @property
    def entrypoint(self) -> list[str]:
        """Its ENTRYPOINT."""
        found = self._run.get("Entrypoint") or []
        return [found] if isinstance(found, str) else [str(part) for part in found]

    @cached_property
    def model_config(self) -> Mapping[str, Any] | None:
        """The model's config.json; None where it was not read."""
        if self.files.config is None:
            return None
        try:
            found = json.loads(self.files.config)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    @property
    def search_path(self) -> list[str]:
        """Folders that its programs are looked for in."""
        said = dict(str(entry).partition("=")[::2] for entry in self._run.get("Env") or [])
        return [folder for folder in (said.get("PATH") or _DEFAULT_PATH).split(":") if folder]

    @property
    def volumes(self) -> list[str]:
        """Its VOLUMEs."""
        return sorted(self._run.get("Volumes") or {})

    @property
    def _run(self) -> Mapping[str, Any]:
        return self.config.get("config") or {}


def look(registry: Registry, digest: str, architecture: str) -> ExistingImage | None:
    """Return an image by digest, with the beginnings of its layers; None where the registry does not have it.

    Args:
        registry: of the image.
        digest: of it, or of an index, which has to have an image for the platform.
        architecture: of the nodes, as OCI names it.

    Raises:
        UnfitError: it is no image of this platform that containerd would run.
        InputError: the registry sends another manifest.
        httpx.HTTPError: it does not answer.
    """
    as_it_should_be = "as the OCI image specification has it", "push it again"
    try:
        found = registry.manifest(digest)
        if found is None:
            return None
        manifest, config = _of_platform(registry, found, architecture)
        fault = not_an_image(manifest, config) or other_platform(config, architecture)
        layers = image_layers(manifest)
    except NoManifestError:
        raise UnfitError(Fault("no manifest of an image", *as_it_should_be)) from None
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        what = f"no manifest of an image ({type(error).__name__}: {error})"
        raise UnfitError(Fault(what, *as_it_should_be)) from None
    if fault:
        raise UnfitError(fault)
    heads = Work(JOBS).all(lambda layer: read_head(registry, layer), layers[:MOST_LAYERS])
    return ExistingImage(digest, manifest, config, ImageFiles.of(heads, _history(config, len(layers))))


class UnfitError(Exception):
    """An image that no pod could be served by, whatever the model is."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.found)
        self.fault = fault


def _of_platform(
    registry: Registry, found: Manifest, architecture: str
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return manifest and configuration of the image that a node of this architecture takes."""
    document = found.document
    if "manifests" not in document:
        return document, _config(registry, document)
    # BuildKit keeps what it says of a build (provenance) in an index too, for no platform.
    rows = [
        row
        for row in document["manifests"]
        if "artifactType" not in row and (row.get("platform") or {}).get("os") != "unknown"
    ]
    there = []
    for row in rows:
        platform = row.get("platform") or {}
        shown = f"{platform.get('os', '?')}/{platform.get('architecture', '?')}"
        if platform and (platform.get("os"), platform.get("architecture")) != ("linux", architecture):
            there.append(shown)
            continue
        one = registry.manifest(row["digest"])
        if one is None:
            fix = "push it again with all of its images"
            raise UnfitError(
                Fault(f"an index whose {shown} {row['digest']} is not there", "an index that is whole", fix)
            )
        config = _config(registry, one.document)
        # Where the index does not say it, containerd takes the configuration's word.
        if platform or other_platform(config, architecture) is None:
            return one.document, config
        there.append(f"{config.get('os', '?')}/{config.get('architecture', '?')}")
    raise UnfitError(
        _platform_fault(f"an index of {', '.join(sorted(set(there))) or 'nothing'}", architecture)
    )


def _config(registry: Registry, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    if not image_layers(manifest):
        return {}  # an artifact's may be of any kind, and large
    found = json.loads(registry.blob(str(manifest["config"]["digest"])))
    return found if isinstance(found, dict) else {}


def image_layers(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the layers that containers get; an artifact has others, or other ones beside them."""
    layers = [{**layer, "size": int(layer["size"])} for layer in manifest.get("layers") or ()]
    return [layer for layer in layers if _LAYER.fullmatch(str(layer.get("mediaType")))]


def not_an_image(manifest: Mapping[str, Any], config: Mapping[str, Any]) -> Fault | None:
    """Return why containerd would not unpack it; None where it would.

    It counts the layers that the configuration names, whatever type that has (core/unpack, client/image.go).
    """
    allowed = "an image with its layers (OCI, or Docker's schema 2)"
    fix = "build a modelcar of it: `FROM busybox` and `COPY … /models`; or lock the model (docs/models.md)"
    if "layers" not in manifest or "config" not in manifest:
        kind = manifest.get("mediaType") or f"schemaVersion {manifest.get('schemaVersion')}"
        return Fault(f"no manifest of an image ({printable(str(kind))})", allowed, fix)
    layers = image_layers(manifest)
    if not layers:
        kind = printable(str(manifest.get("artifactType") or manifest["config"].get("mediaType")))
        return Fault(f"an artifact, none of whose layers a container gets ({kind})", allowed, fix)
    names = (config.get("rootfs") or {}).get("diff_ids") or []
    if len(names) != len(layers):
        found = f"{len(layers)} layers of an image, and its configuration names {len(names)}"
        return Fault(found, allowed, "push it again: the image is damaged" if names else fix)
    return None


def other_platform(config: Mapping[str, Any], architecture: str) -> Fault | None:
    """Return that an image is another platform's; one that does not say its own passes."""
    system, processor = config.get("os") or "linux", config.get("architecture") or architecture
    if (system, processor) == ("linux", architecture):
        return None
    return _platform_fault(f"an image for {printable(f'{system}/{processor}')}", architecture)


def _platform_fault(found: str, architecture: str) -> Fault:
    return Fault(
        f"{found}: its programs do not run on the nodes (exec format error)",
        f"linux/{architecture} (modelcar:architecture)",
        f"build it with --platform linux/{architecture}; where the nodes are of the other kind, or only the "
        "image's label is wrong, set modelcar:architecture of this model",
    )


def _history(config: Mapping[str, Any], layers: int) -> list[bool]:
    """Return of each layer whether its builder wrote down that it has files below /models only."""
    said = [
        str(row.get("created_by", "")) for row in config.get("history") or [] if not row.get("empty_layer")
    ]
    if len(said) != layers:
        return [False] * layers
    return [_MODELS_ONLY.fullmatch(text.strip()) is not None for text in said]


def faults(
    image: ExistingImage, user: int, *, runs_arguments: bool = False, needs_config: bool = True
) -> Iterator[Fault]:
    """Yield what would keep a pod from being served by an image.

    Args:
        image: what is known of it.
        user: that KServe runs the containers as.
        runs_arguments: somebody knows that the image's entry point runs its arguments.
        needs_config: the server is vLLM, which finds the model's configuration in /models or ends.
    """
    yield from _entrypoint_fault(image.entrypoint, runs_arguments=runs_arguments)
    files = image.files
    if not _has(image, "sh") and not files.unread_programs:
        yield Fault(
            f"has no sh in {':'.join(image.search_path)}, which KServe's containers run",
            "an image with a shell",
            "build it FROM busybox or another small base, in place of scratch or distroless; an image of "
            "weights alone is for image volumes, which KServe mounts from version 0.20 on",
        )
    yield from _files_faults(files, user, needs_config=needs_config)


def _has(image: ExistingImage, program: str) -> bool:
    return any(image.files.find(f"{folder}/{program}") for folder in image.search_path)


def _entrypoint_fault(entrypoint: Sequence[str], *, runs_arguments: bool) -> Iterator[Fault]:
    if not entrypoint or runs_arguments or _wraps(entrypoint):
        return
    shown = printable(json.dumps(list(entrypoint)))
    yield Fault(
        f"has the ENTRYPOINT {shown}: KServe's containers are started with arguments only (sh -c …), which "
        "this would get in place of the shell",
        "an image without ENTRYPOINT",
        'build it with `ENTRYPOINT []`; if that program runs its arguments, as `exec "$@"` does, set '
        "modelcar:entrypointRunsArguments to true",
    )


def _wraps(entrypoint: Sequence[str]) -> bool:
    if not entrypoint or any(not part.startswith("-") for part in entrypoint[1:]):
        return False  # of two programs the second one gets the arguments
    return entrypoint[0].rpartition("/")[2] in WRAPPERS


def _files_faults(files: ImageFiles, user: int, *, needs_config: bool) -> Iterator[Fault]:
    models = files.real("models")
    inside = files.below(models)
    if not inside and not files.leads_out("models"):
        if files.unread_models:
            return
        found = "its folder /models is empty" if files.find("models") else "has no folder /models"
        other = files.elsewhere("config.json")
        fix = f"COPY the folder of /{other} to /models" if other else "COPY the model's files to /models"
        allowed = "the model's files in /models"
        yield Fault(f"{found}: KServe's init container fails", allowed, f"{fix}, and build it again")
        return
    outside = [path for path in ["models", *inside] if files.leads_out(path)]
    told = files.unread_models or {"models", CONFIG} & set(outside)
    there = [path.removeprefix(f"{models}/") for path in inside if files.find(path)]
    if needs_config and not told and config_of(there) is None:
        yield _no_config([path for path in inside if path.endswith("/config.json") and files.find(path)])
    if outside:
        found = f"/{printable(outside[0])} is a link to an absolute path"
        more = f", as {len(outside) - 1} more" if len(outside) > 1 else ""
        yield Fault(
            f"{found}{more}: the server follows it in its own file system, where nothing is",
            "files, or relative links",
            "copy what the links point at (cp -L), and build it again",
        )
    closed = [path for path in ["models", *inside] if files.closed_to(path, user)]
    if closed:
        entry = files.files[closed[0]]
        more = f", nor {len(closed) - 1} more" if len(closed) > 1 else ""
        yield Fault(
            f"/{printable(closed[0])} cannot be read by user {user}{more} (mode {entry.mode & 0o7777:04o}, "
            f"user {entry.uid}, group {entry.gid}), and KServe runs the server as that user",
            "files that everybody may read, folders too",
            "chmod -R a+rX the folder before COPY, or COPY --chmod=a+rX",
        )


def _no_config(below: Sequence[str]) -> Fault:
    """Return that vLLM finds no configuration of the model; below: where there is one all the same."""
    where = f" (it is in /{below[0]})" if below else ""
    move = (
        f"COPY the files of that folder to /models itself ({below[0].rpartition('/')[0]}/. )" if below else ""
    )
    return Fault(
        f"has no /{CONFIG}{printable(where)}: vLLM ends without it",
        f"the model's config.json in /models itself, or Mistral's {PARAMS} beside consolidated*.safetensors",
        f"{printable(move) or 'add it'}; or serve the model by another server (modelcar:runtime custom)",
    )


def pickles(files: ImageFiles) -> str | None:
    """Return that there are pickles in /models, as far as its files were read; None where there are none."""
    inside = files.below(files.real("models"))
    found = [path for path in inside if path.lower().endswith(PICKLE_SUFFIXES) and files.find(path)]
    if not found:
        return None
    more = f", as are {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f"/{printable(found[0])} is a pickle{more}: whoever made it may run code in the server that "
        "loads it. Take safetensors instead, or be sure of its author"
    )


def notes(image: ExistingImage) -> Iterator[str]:
    """Yield what does not keep it from being served, and what could not be looked at."""
    files = image.files
    if _wraps(image.entrypoint):
        yield f"has the ENTRYPOINT {json.dumps(image.entrypoint)}, which is taken to run its arguments"
    for volume in image.volumes:
        if f"{volume.rstrip('/')}/" in "/models/" or volume.startswith("/models/"):
            yield (
                f"has a VOLUME {printable(volume)}: containerd copies the weights for each of KServe's "
                "containers, at every start. Build it without"
            )
    if told := pickles(files):
        yield told
    if not image.config.get("architecture"):
        yield "does not say which processors it is for"
    unread = []
    if not files.below(files.real("models")):
        unread.append("whether /models has files")
    if image.model_config is None and (files.unread_models or files.find(CONFIG)):
        unread.append("config.json, so that the server's arguments are not compared with the model")
    elif image.model_config is None:
        yield f"has no /{CONFIG}: whether the server can read the model is not looked at"
    if lacking := [program for program in PROGRAMS if not _has(image, program)]:
        if files.unread_programs:
            unread.append(f"whether it has {', '.join(lacking)}")
        else:
            names = ", ".join(lacking)
            yield f"has no {names}, which KServe's containers run, unless its shell has them itself"
    if unread:
        reasons = f" ({'; '.join(files.why)})" if files.why else ""
        yield f"not looked at, as only the beginning of large layers is read: {', '.join(unread)}{reasons}"
