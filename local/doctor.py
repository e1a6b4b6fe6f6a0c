"""`make doctor STACK=…`: whether machine, credentials, registry and cluster are ready for a stack.

Looks, and changes nothing. Each line says what was found, and where something is missing, the fix.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil

from components.cluster.kserve_config import CONFIG_MAP, configuration_problems, modelcar_enabled
from components.config import deprecations
from components.config.checks.secrets import not_kept
from components.config.loading import PLATFORM_FILE_VARIABLE, platform_file
from components.config.models import load_stack
from components.config.pool_room import most_gpus
from components.config.problems import NAMESPACE, top_of
from components.config.secrets import KEPT, Secrets
from components.config.settings import PLACEHOLDERS, PLATFORM_FILE, Settings
from components.config.stack import Stack
from components.image import existing_image
from components.manifests import autoscaling
from components.stack import reachability
from local import direct, gpu, namespaces, room, uv
from local import platform as embedded_platform
from local.backend import chosen_backend
from local.downloads.choice import Mode, mode
from local.downloads.obtain import may_download
from local.hidden_settings import is_below, without_secrets
from local.instance import PROJECT, Instance, cache_root, state_root
from local.plugins import LANGUAGE_HOST
from local.room import GIB, Need
from local.servers.choice import RELEASES, is_installed
from local.serving import decide, full_cards
from local.stack import STACK
from local.tool_build import build_needs, go_environment, go_problem, left_to_take, which
from local.tools import unbuilt
from modelcar.buildx import builder_problem
from modelcar.errors import InputError, Problem
from modelcar.home import in_home
from modelcar.lock_reader import read_lock
from modelcar.version import version
from operations.stack import at_cluster

#: Of the embedded platform with vLLM, and with the small server; and its state (docs/local-stack.md).
MEMORY, LEAST_MEMORY, STATE_DISK = 4 * GIB, 2 * GIB, GIB // 2
#: For the program (application default credentials), and for gcloud itself.
LOGIN = "gcloud auth login --update-adc"
#: Somebody switches these on before the first `up`, which asks them.
FIRST_APIS = ("cloudresourcemanager.googleapis.com", "serviceusage.googleapis.com")
#: Seconds for a command of somebody else's.
PATIENCE = 20


@dataclass(frozen=True)
class Line:
    """One finding. state: ok; note: works, but is worth knowing; missing: `up` will not work."""

    part: str
    state: Literal["ok", "note", "missing"]
    found: str
    fix: str = ""


def doctor(instance: Instance, name: str, config: dict[str, Any]) -> list[Line]:
    """Return what was found.

    Args:
        instance: the embedded platform.
        name: of the stack.
        config: its settings as its file has them.
    """
    plain, secret = without_secrets(config)
    if name == STACK and isinstance(said := plain.get(PLATFORM_FILE), str):
        plain[PLATFORM_FILE] = platform_file(said, {PLATFORM_FILE_VARIABLE: str(instance.settings_file)})
    embedded = name == STACK and not config.get("registry")  # else a cluster of the user's own serves
    running = False
    lines = [Line("modelcar", "ok", version()), *_machine(embedded=embedded)]
    if embedded:
        direct.reach(instance)
        running = embedded_platform.supervisor(instance) is not None
        lines += _embedded(running=running)
        lines += _serving(instance, plain)
    completed = plain if embedded or name != STACK else _completed(plain)
    stack, told = _settings(name, completed, secret)
    lines += told
    if embedded and (config.get("kubeContext") or config.get("kubeconfig")):
        fix = f"set modelcar:registry in Pulumi.{STACK}.yaml too (docs/local-stack.md)"
        found = "not set, while modelcar:kubeContext or modelcar:kubeconfig is"
        lines.append(Line("settings: modelcar:registry", "missing", found, fix))
    if stack:
        if "models" not in secret:
            lines += _locks(stack)
        if stack.shared.google:
            lines += _google(stack)
        if not embedded or running:
            lines += _reached(stack, known="kubeconfig" not in secret)
        if embedded and not running:
            lines.append(Line("platform", "note", "it does not run", "make up starts it"))
        elif "kubeconfig" in secret:
            fix = f"make preview STACK={name}, which opens it"
            lines.append(Line("cluster", "note", "modelcar:kubeconfig is a secret, not opened here", fix))
        else:
            lines += _cluster(stack)
        if not embedded and (completed is plain or plain.get("builder")):  # else `make up` makes it
            lines += _builders(stack)
    if name != STACK:
        lines += _backend()
    return lines


def _said(*command: str) -> str | None:
    """Return what a command prints as its result; None where it is not there, or fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _machine(*, embedded: bool) -> Iterator[Line]:
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    if not embedded:
        yield Line("machine", "ok", system)
    else:
        try:
            namespaces.require()
        except InputError as error:
            [problem] = error.problems
            yield Line("machine", "missing", f"{system}; {problem.key}: {problem.value}", problem.fix)
        else:
            yield Line("machine", "ok", f"{system}, root")
    for tool, fix in (("git", "install git"), ("make", "install make")):
        found = shutil.which(tool)
        yield Line(tool, "ok" if found else "missing", found or "not on PATH", "" if found else fix)
    yield _pulumi()
    if which(LANGUAGE_HOST):
        yield _uv()


def _embedded(*, running: bool) -> Iterator[Line]:
    """Yield what the embedded platform needs of this machine."""
    go = go_environment()
    problem, fix = go_problem(go)
    built = not unbuilt()
    downloads = bool(problem) and not built and may_download()
    without = "; needed only for what has no release" if downloads else ""
    state: Any = "ok" if not problem else "note" if built or downloads else "missing"
    yield Line("go", state, f"{problem or go.get('GOVERSION') or 'on PATH'}{without}", fix)
    if not running:  # it takes its memory already
        free = psutil.virtual_memory().available
        yield _room("memory", free, MEMORY, LEAST_MEMORY, "free some memory")
    builds = not problem and not built and mode() is not Mode.RELEASE
    server = Need("MODELCAR_CACHE", cache_root(), _server_disk("vllm"))
    kept = [Need("MODELCAR_STATE", state_root(), STATE_DISK), server]
    built_here = build_needs(go) if builds else []
    if any(disk.free < disk.wanted for disk in room.disks([*built_here, *kept])):
        built_here = [left_to_take(need) for need in built_here]
    found = room.disks([*built_here, *kept])
    smaller = server.size - min(server.size, _server_disk("transformers"))
    for disk in found:
        least = disk.wanted - (smaller if server in disk.needs else 0)
        part = "disk" if len(found) == 1 else f"disk of {disk.names}"
        fix = f"free some disk, or name folders on a larger one ({disk.names})"
        yield _room(part, disk.free, disk.wanted, least, fix)


def _server_disk(kind: str) -> int:
    """Return the bytes that a model server's environment is still to take."""
    there = any(is_installed(one, cache_root()) for one in (kind, "vllm-cuda"))
    return 0 if there else RELEASES[kind].disk


def _room(part: str, free: int, wanted: int, least: int, fix: str) -> Line:
    found = f"{free / GIB:.1f} GiB free; the embedded platform takes about {wanted / GIB:.1f}"
    if free >= wanted:
        return Line(part, "ok", found)
    if free >= least:
        return Line(part, "note", f"{found}, and {least / GIB:.1f} with the small model server", fix)
    return Line(part, "missing", found, fix)


def _completed(plain: dict[str, Any]) -> dict[str, Any]:
    """Return the local stack's settings for a cluster of the user's own as `make up` will complete them."""
    file = plain.get(PLATFORM_FILE)
    if not file or (PROJECT / str(file)).exists():
        return plain
    defaults = {"gpuCount": 0, "serverImage": PLACEHOLDERS["serverImage"]}
    return {**defaults, **{key: value for key, value in plain.items() if key != PLATFORM_FILE}}


def _serving(instance: Instance, config: dict[str, Any]) -> Iterator[Line]:
    """Yield what was found of GPUs, and the model server that `up` would choose."""
    try:
        chosen = decide(config)
    except InputError as error:
        found = gpu.look()
        yield Line("GPU", "note" if found.fix else "ok", found.found, found.fix)
        for problem in error.problems:
            yield Line("model server", "missing", f"{problem.key}: {problem.value}", problem.fix)
        return
    yield Line("GPU", "note" if chosen.found.fix else "ok", chosen.found.found, chosen.found.fix)
    # The platform's own pod may be what fills the card.
    if chosen.gpus and not embedded_platform.hands_out(instance):
        for warning, fix in full_cards(chosen.gpus, config):
            yield Line("GPU memory", "note", warning, fix)
    unused = chosen.found.gpus and not chosen.gpus
    yield Line("model server", "note" if unused else "ok", f"{chosen.kind}: {chosen.reason}")


def _pulumi() -> Line:
    version = _said("pulumi", "version")
    if version and which(LANGUAGE_HOST):
        return Line("pulumi", "ok", version)
    if version:
        found = f"{version}, without pulumi-language-python: a stand-in of this project serves"
        return Line("pulumi", "note", found, "https://www.pulumi.com/docs/install/ brings both")
    return Line("pulumi", "note", "not on PATH: `make` builds it", "https://www.pulumi.com/docs/install/")


def _uv() -> Line:
    """Look for what Pulumi's own Python language host runs."""
    try:
        ours = uv.beside_language_host().get("uv")
    except InputError as error:
        [problem] = error.problems
        return Line("uv", "missing", problem.value, problem.fix)
    if not ours:
        return Line("uv", "ok", str(shutil.which("uv")))
    fix = "for plain `pulumi`: https://docs.astral.sh/uv/getting-started/installation/"
    return Line("uv", "note", f"not on PATH: commands of `make` take {ours}", fix)


def _settings(name: str, plain: dict[str, Any], secret: frozenset[str]) -> tuple[Stack | None, list[Line]]:
    texts = {
        f"{NAMESPACE}:{key}": value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in plain.items()
    }
    tops = frozenset(map(top_of, secret))
    wrong = list(not_kept(Secrets(tops)))
    stack: Stack | None = None
    try:
        stack = load_stack(texts, PROJECT)
    except InputError as error:
        # What stands in for a secret is nobody's mistake.
        keys = secret | tops - KEPT
        wrong += [one for one in error.problems if not is_below(one.key.removeprefix(f"{NAMESPACE}:"), keys)]
    hidden = f"{', '.join(sorted(secret))}: secret, not opened here"
    if stack is None and not wrong:
        fix = f"make preview STACK={name}, which opens it"
        return None, [Line("settings", "note", f"{hidden}, so that not all could be looked at", fix)]
    lines = [_wrong(problem, embedded=name == STACK) for problem in wrong]
    if stack:
        names = ", ".join(settings.key for settings in stack.models)
        lines += [] if wrong else [Line("settings", "ok", f"Pulumi.{name}.yaml: {names}")]
        lines += [
            Line(f"settings: {place}", "note", f"deprecated, and goes in {entry.removed}", entry.instead)
            for place, entry in deprecations.in_settings(texts)
        ]
    lines += [Line("secrets", "note", hidden)] if secret else []
    return stack, lines


def _wrong(problem: Problem, *, embedded: bool) -> Line:
    if embedded and problem.key == f"{NAMESPACE}:{PLATFORM_FILE}":
        return Line("platform", "note", f"{problem.value}: it was not started yet", "make up starts it")
    return Line(f"settings: {problem.key}", "missing", problem.value, f"{problem.allowed}; {problem.fix}")


def _locks(stack: Stack) -> Iterator[Line]:
    for settings in stack.models:
        if settings.image:
            yield _existing(settings)
            continue
        try:
            lock = read_lock(PROJECT / settings.lock_path)
        except (InputError, OSError):
            fix = f"python -m modelcar lock {settings.lock_path.parent.name}"
            yield Line(
                f"lock of {settings.key}", "missing", f"{settings.lock_path} is not there, or wrong", fix
            )
        else:
            yield Line(
                f"lock of {settings.key}", "ok", f"{lock.total_size / 1e9:.2f} GB, {lock.digest[:19]}…"
            )


def _existing(settings: Settings) -> Line:
    try:
        found = existing_image.find(settings, preview=False)
    except InputError as error:
        one = error.problems[0]
        return Line(f"image of {settings.key}", "missing", one.value, one.fix)
    size = (found.size or 0) if found else 0
    return Line(f"image of {settings.key}", "ok", f"{size / 1e9:.2f} GB of layers, {settings.place.digest}")


def _builders(stack: Stack) -> Iterator[Line]:
    for name in dict.fromkeys(settings.builder for settings in stack.models):
        part = f"builder {name}" if name else "builder"
        if problem := builder_problem(name):
            yield Line(part, "missing", problem.value, problem.fix)
        elif name or shutil.which("docker") or shutil.which("buildx"):
            chosen = "as buildx knows it" if name else "one that the docker-build provider chooses or makes"
            yield Line(part, "ok", chosen)
        else:
            found = "neither docker nor buildx is on PATH, so it is not looked at"
            yield Line(part, "note", found, "install Docker, or name a builder elsewhere (docs/builders.md)")


def _google(stack: Stack) -> Iterator[Line]:
    google = stack.google
    assert google is not None  # noqa: S101 -- asked by the caller
    file = (
        os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        or "~/.config/gcloud/application_default_credentials.json"
    )
    yield _credentials(in_home(file))
    if shutil.which(reachability.AUTH_PLUGIN) is None and not stack.shared.kubeconfig:
        fix = f"gcloud components install {reachability.AUTH_PLUGIN}"
        yield Line(reachability.AUTH_PLUGIN, "missing", "not on PATH", fix)
    if shutil.which("gcloud") is None:
        fix = "https://cloud.google.com/sdk/docs/install"
        yield Line("gcloud", "note", "not on PATH, so the quota of GPUs is not looked at", fix)
        return
    if account := _said("gcloud", "auth", "list", "--filter=status:ACTIVE", "--format=value(account)"):
        yield Line("gcloud account", "ok", account)
    else:
        # docker's credential helper, for the push, and the cluster's plugin act as gcloud's own account.
        state: Any = "note" if stack.shared.kubeconfig else "missing"
        yield Line("gcloud account", state, "none is active: the push, and the cluster, ask for one", LOGIN)
    if google.enable_apis or not google.nodes.service_account:
        yield _first_apis(google.project)
    for pool in google.all_pools:
        yield _quota(google.project, google.region, pool.gpu, most_gpus(pool), spot=pool.spot)


def _credentials(file: Path) -> Line:
    part = "Google credentials"
    if not file.is_file():
        return Line(part, "missing", "no application default credentials", LOGIN)
    try:
        told = json.loads(file.read_text())
    except (OSError, ValueError):  # a login that was interrupted, a secret that is empty
        told = None
    if not isinstance(told, dict) or "type" not in told:
        return Line(part, "missing", f"{file} cannot be read, or is not as gcloud writes it", LOGIN)
    if told["type"] == "service_account":
        fix = "a key can leak: federation or impersonation needs none (docs/google-cloud.md)"
        return Line(part, "note", f"{file} (service_account)", fix)
    return Line(part, "ok", f"{file} ({told['type']})")


def _first_apis(project: str) -> Line:
    """Look at the APIs without which no other can be switched on, and no role of the project granted."""
    part, fix = "Google APIs", f"gcloud services enable {' '.join(FIRST_APIS)} --project={project}"
    text = _said(
        "gcloud", "services", "list", "--enabled", f"--project={project}", "--format=value(config.name)"
    )
    if text is None:
        return Line(part, "note", "cannot be asked; before the first `up` these have to be on", fix)
    lacking = [name for name in FIRST_APIS if name not in text.split()]
    if lacking:
        return Line(part, "missing", f"off in {project}: {', '.join(lacking)}", fix)
    return Line(part, "ok", f"on in {project}: {', '.join(FIRST_APIS)}")


def _quota(project: str, region: str, gpu: str, wanted: int, *, spot: bool) -> Line:
    """Compare a region's quota with what a pool may take; each GPU has a metric (NVIDIA_L4_GPUS)."""
    model = gpu.removeprefix("nvidia-").removeprefix("tesla-").replace("-", "_").upper()
    metric = f"{'PREEMPTIBLE_' if spot else ''}NVIDIA_{model}_GPUS"
    text = _said(
        "gcloud", "compute", "regions", "describe", region, f"--project={project}", "--format=json(quotas)"
    )
    if text is None:
        return Line(f"quota {metric}", "note", "cannot be asked", f"{LOGIN}; or the project is another")
    rows = {row["metric"]: row for row in json.loads(text).get("quotas", [])}
    row = rows.get(metric)
    if row is None:
        return Line(f"quota {metric}", "note", f"{region} tells none", "see it in the console: IAM, Quotas")
    free = row["limit"] - row["usage"]
    shown = f"{free:.0f} of {row['limit']:.0f} free, and the pool may take {wanted}"
    fix = f"ask for more {metric} in {region}, or lower maxNodes"
    return Line(
        f"quota {metric}", "ok" if free >= wanted else "missing", shown, "" if free >= wanted else fix
    )


def _reached(stack: Stack, *, known: bool) -> Iterator[Line]:
    """Yield whether registry and cluster are reached; known: whether the kubeconfig can be read here."""
    problems: list[Problem] = []
    try:
        reachability.require(stack.shared)
    except InputError as error:
        problems = [one for one in error.problems if known or one.key == f"{NAMESPACE}:registry"]
    for problem in problems:
        yield Line(problem.key.removeprefix("modelcar:"), "missing", problem.value, problem.fix)
    if not problems:
        yield Line("registry", "ok", f"{stack.shared.registry} accepts connections")


def _cluster(stack: Stack) -> Iterator[Line]:
    from components.cluster.access import Cluster, ClusterError
    from components.cluster.smoke import kserve_version

    settings = stack.shared
    if settings.google and settings.google.cluster.create and not settings.kube_context:
        yield Line("cluster", "note", "made by this stack: nothing to look at before its first `up`")
        return
    try:
        settings = at_cluster(settings, PROJECT)
        cluster = Cluster.of(settings)
        version = (cluster.get("/version") or {}).get("gitVersion", "?")
        yield Line("cluster", "ok", f"{cluster.name}, Kubernetes {version}")
        try:
            kserve = kserve_version(cluster, settings)
        except InputError:
            fix = "pulumi config set --path modelcar:kserve.install true"
            wanted = settings.kserve.install
            found = "not there; this stack installs it" if wanted else "not there"
            yield Line("KServe", "ok" if wanted else "missing", found, "" if wanted else fix)
            return
        path = f"/api/v1/namespaces/{settings.kserve.namespace}/configmaps/{CONFIG_MAP}"
        data = (cluster.get(path) or {}).get("data")
        enabled = modelcar_enabled(data) is True
        found = f"{kserve or 'of unknown version'}, modelcar {'on' if enabled else 'off'}"
        wrong = configuration_problems(
            data, settings.deployment_mode, modelcars=settings.placement != "imageVolume"
        )
        found += "".join(f"; {problem.key}: {problem.value}" for problem in wrong if enabled)
        yield Line("KServe", "missing" if wrong else "ok", found, wrong[0].fix if wrong else "")
        yield _webhooks(cluster, settings)
        if any(autoscaling.of(model) for model in stack.models):
            yield _keda(settings)
        if any(model.deployment_mode == "Knative" for model in stack.models):
            yield _knative(settings, stack)
        yield from _gpus(cluster, stack)
    except InputError as error:
        [problem] = error.problems
        yield Line("cluster", "missing", problem.value, problem.fix)
    except (ClusterError, httpx.HTTPError, OSError, ValueError) as error:
        yield Line(
            "cluster", "missing", str(error).splitlines()[0], "log in to it, or choose another context"
        )


def _webhooks(cluster: Any, settings: Settings) -> Line:
    from components.cluster import webhooks

    answer = webhooks.ask(cluster)
    part = "KServe's webhooks"
    if answer.state == "unknown":
        return Line(part, "note", "not asked", "you may not try InferenceServices in namespace default")
    if answer.state == "answers":
        return Line(part, "ok", "answer the API server")
    if answer.other:
        return Line("webhooks", "missing", answer.said, webhooks.fix_of_other(answer))
    fix = (
        webhooks.firewall_rule(settings) if answer.state == "silent" else "wait until KServe's pods are ready"
    )
    return Line(part, "missing", answer.said, fix)


def _keda(settings: Settings) -> Line:
    from components.cluster import keda

    try:
        keda.require(settings)
    except InputError as error:
        [problem] = error.problems
        return Line("KEDA", "missing", problem.value, problem.fix)
    return Line("KEDA", "ok", "there, for modelcar:autoscaling")


def _knative(settings: Settings, stack: Stack) -> Line:
    from components.cluster import knative_fit

    try:
        knative_fit.require(settings, stack.models)
    except InputError as error:
        shown = "; ".join(f"{problem.key}: {problem.value}" for problem in error.problems)
        return Line("Knative", "missing", shown, error.problems[0].fix)
    return Line("Knative", "ok", "takes what the models need")


def _gpus(cluster: Any, stack: Stack) -> Iterator[Line]:
    needed = max(settings.gpu_count for settings in stack.models)
    if not needed or stack.google:
        return  # none is needed, or the pool brings them
    nodes = (cluster.get("/api/v1/nodes") or {}).get("items", [])
    most = max((int(n["status"].get("allocatable", {}).get("nvidia.com/gpu", 0)) for n in nodes), default=0)
    fix = "add nodes with GPUs and NVIDIA's device plugin; until then pods stay Pending"
    found = f"{most} on one node, and a pod needs {needed}"
    yield Line("GPUs", "ok" if most >= needed else "missing", found, "" if most >= needed else fix)


def _backend() -> Iterator[Line]:
    chosen = chosen_backend()
    if chosen:
        yield Line("Pulumi backend", "ok", f"by {' and '.join(chosen)}")
    else:
        fix = "export PULUMI_BACKEND_URL=gs://BUCKET, or log in to Pulumi Cloud (docs/google-cloud.md)"
        yield Line("Pulumi backend", "missing", "none is set up; `make preview` works without", fix)


MARKS = {"ok": "ok", "note": "note", "missing": "MISSING"}


def next_command(lines: list[Line], name: str, *, running: bool) -> str:
    """Return the one command to go on with.

    Args:
        lines: that were found.
        name: of the stack.
        running: whether the embedded platform runs.
    """
    missing = next((line for line in lines if line.state == "missing"), None)
    if missing is not None:
        return f"{missing.fix}; then make doctor STACK={name}"
    if name != STACK:
        return f"make preview STACK={name}, then make deploy STACK={name}"
    return "make validate STACK=local" if running else "make up"


def report(lines: list[Line]) -> Iterator[str]:
    """Yield the findings as a table for people, with the fixes below their lines."""
    width = max(len(line.part) for line in lines)
    for line in lines:
        yield f"{MARKS[line.state]:>8}  {line.part:{width}}  {line.found}"
        if line.fix:
            yield f"{'':>8}  {'':{width}}  fix: {line.fix}"
    missing = sum(line.state == "missing" for line in lines)
    yield f"{missing} missing" if missing else "ready"


def document(lines: list[Line]) -> list[dict[str, str]]:
    """Return the findings for programs."""
    return [asdict(line) for line in lines]
