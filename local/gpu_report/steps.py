"""What the report does, in order: the commands that anyone runs, models of true dimensions, bad input."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from components.cluster.access import JSON
from components.cluster.pods import is_ready
from components.manifests.image_volume import model_image
from local import stack
from local.ask import is_healthy
from local.gpu_report import kernels
from local.gpu_report.bare import bare
from local.gpu_report.children import Failed, last_words
from local.gpu_report.evidence import evidence
from local.gpu_report.imports import imports
from local.gpu_report.in_turn import in_turn
from local.gpu_report.load import answers, first_token, rates
from local.gpu_report.runner import EXPECTED, Found, Step
from local.gpu_report.site import WINDOW, Model, Site
from local.page_cache import settle
from modelcar.base import read_base
from modelcar.image import modelcar_image
from modelcar.lock import layout_path
from modelcar.oci_layout import require_space
from modelcar.push import layers_there
from modelcar.registry import Target
from operations.server_phases import server_phases

#: Seconds between two looks at a pod that starts.
POLL = 0.05
#: Copies of a model at one time: what was made and its layout, or registry, node's image and unpacked image.
COPIES = 3

#: Seconds of a start on a filled card: vLLM looks at the card's memory after 40 s of imports at best. In 75 s
#: it had not said a word yet, on a card that was filled to 94 %.
FILLED = 120
#: Takes all of each card but a little, as another user's process would, and holds it until it is stopped.
_FILL = """
import time, torch
held = []
for number in range(torch.cuda.device_count()):
    free, _ = torch.cuda.mem_get_info(number)
    held.append(torch.empty(int(free * 0.9), dtype=torch.uint8, device=f"cuda:{number}"))
print("filled", [tensor.numel() for tensor in held], flush=True)
time.sleep(3600)
"""


#: vLLM's engine goes on from what its API server has imported, and does not import it once more.
ONE_IMPORT = ("VLLM_WORKER_MULTIPROC_METHOD=fork",)

#: What Pulumi says of a failed run beside the reasons.
_SUMS_UP = re.compile(r"error: (update failed|\d+ errors? occurred:)")


@dataclass(frozen=True)
class Scale:
    """How much is asked. streams: at once; tokens: of each answer; repeats: of which the median counts.

    start: seconds that a server's start may take. answers: prompts whose texts are compared between starts.
    turns: how often a pod and bare vLLM are asked in turn. imports: how often they are timed in each way.
    """

    streams: tuple[int, ...]
    tokens: int
    repeats: int
    start: float
    answers: int
    turns: int
    imports: int


#: On a GPU, and without one, where only the way is tried.
GPU = Scale((1, 64), 512, 5, 300.0, 64, 12, 2)
CPU = Scale((1, 4), 16, 1, 240.0, 2, 2, 1)


def scale_of(site: Site) -> Scale:
    """Return how much is asked on a site's machine."""
    return GPU if site.gpus else CPU


def steps(
    site: Site,
    models: Sequence[Model],
    pairs: int,
    kernels_from: Path | None = None,
    repeats: int | None = None,
) -> list[Step]:
    """Return all steps of a report.

    Args:
        site: where they are done.
        models: that are measured.
        pairs: how often each is started by itself, as a pod, with kernels, with its weights read ahead, and
            with all that shortens it.
        kernels_from: a folder with what another machine's report has saved.
        repeats: measurements of tokens per second after each start; the scale's own where None.
    """
    report = _Report(site, kernels_from, repeats)
    found = [
        Step("doctor", lambda: report.command("doctor", "doctor", stack.STACK, check=False), 60),
        Step("up", report.up, 900, least=30, standing=site.local_serves),
        Step(
            "validate",
            lambda: report.command("validate", "operate", "validate", stack.STACK),
            120,
            needs=("up",),
        ),
        Step("runbook", lambda: report.command("runbook", "runbook"), 600, least=60, needs=("up",)),
        Step(
            "smoke",
            lambda: report.command("smoke", "operate", "smoke", stack.STACK),
            240,
            least=30,
            needs=("up",),
        ),
    ]
    for model in models:
        found += report.of(model, pairs)
    found.append(Step("imports", lambda: report.imports(models), scale_of(site).start, least=60))
    return [*found, *report.two_gpus(models), *report.bad_input(models)]


class _Report:
    """The steps' work."""

    def __init__(self, site: Site, kernels_from: Path | None, repeats: int | None) -> None:
        self.site, self.kernels = site, kernels_from
        scale = scale_of(site)
        self.scale = replace(scale, repeats=repeats or scale.repeats)
        self.cards = len(site.gpus.cards) if site.gpus else 0

    # --- the commands that anyone runs ------------------------------------------------------------

    def up(self) -> Found:
        """Do `make up`, and show that its pod is on the GPU where there is one."""
        found = self.command("up", "up")
        summary = json.loads((self.site.instance.state / "summary.json").read_text())
        found["phases"] = {name: round(seconds, 1) for name, seconds in summary["seconds"].items()}
        found["answers"] = {one["answer"]["model"]: one["answer"]["text"] for one in summary["models"]}
        if self.site.gpus:
            cluster = self.site.platform_cluster()
            for one in summary["models"]:
                space, name = one["outputs"]["namespace"], one["pod"]["name"]
                pod = cluster.get(f"/api/v1/namespaces/{space}/pods/{name}")
                if pod:
                    found["evidence"] = evidence(cluster, pod)
        return found

    def command(self, target: str, *arguments: str, check: bool = True) -> Found:
        """Do what a target of make does."""
        done = self.site.local(target, *arguments, check=check)
        return {
            "command": f"make {target}",
            "status": done.status,
            "said": last_words(done.said).splitlines(),
        }

    # --- one model --------------------------------------------------------------------------------

    def of(self, model: Model, pairs: int) -> list[Step]:
        """Return the steps of a model: delivered, served, and started by itself and as a pod in turn."""
        pushed, served = f"{model.like}/pushed", f"{model.like}/served"
        start = self.scale.start

        def one(name: str, run: Callable[[], Found], needs: str, unfit: str = "") -> Step:
            return Step(f"{model.like}/{name}", run, start + 60, least=45, needs=(needs,), unfit=unfit)

        found = [
            Step(pushed, lambda: self.pushed(model), 300, least=20, standing=lambda: self.is_pushed(model)),
            Step(
                served,
                lambda: self.served(model),
                start + 120,
                least=60,
                needs=(pushed,),
                standing=lambda: self.is_served(model),
            ),
        ]
        unfit = "" if self.cards else "without a GPU the server compiles nothing here"
        saved = f"{model.like}/saved"
        found.append(
            Step(
                saved,
                lambda: self.save_kernels(model),
                start + 120,
                least=60,
                needs=(served,),
                unfit=unfit,
                standing=lambda: self.is_saved(model),
            )
        )
        for number in range(1, pairs + 1):  # in turn, so that what changes on a machine meets all kinds alike
            log = f"{model.stack}-bare-{number}"
            found += [
                one(f"bare {number}", partial(self.bare, model, log), served),
                one(f"pod {number}", lambda: self.pod(model), served),
                one(f"kernels {number}", lambda: self.with_kernels(model), saved, unfit),
                one(f"ahead {number}", lambda: self.ahead(model), saved if self.cards else served),
                one(f"all {number}", lambda: self.with_all(model), saved, unfit),
            ]
        turns = Step(f"{model.like}/in turn", lambda: self.in_turn(model), 2 * start, 120, (pushed,))
        return [*found, turns]

    def save_kernels(self, model: Model) -> Found:
        """Save what a pod of the model has compiled, or take another machine's, and send the layer."""
        site, name = self.site, model.stack
        if archive := kernels.given(self.kernels, model):
            return kernels.add(site, model, archive)
        if not any(is_ready(pod) for pod in site.pods(site.cluster(name), name)):
            self._make_room()
            site.select(name)
            site.configure(name, model)
            site.up(name, f"{name}-up-to-save")
        return kernels.save(site, model)

    def with_kernels(self, model: Model, **own: Any) -> Found:
        """Start the model's pod as `pod` does, with the kernels of its image, which have to be used."""
        found = self.pod(model, kernels="require", **own)
        kernels.require_hit(found)
        return found

    def ahead(self, model: Model) -> Found:
        """Start the model's pod with its kernels, while its weights are read during the server's imports."""
        start = self.with_kernels if self.cards else self.pod
        return start(model, readAhead=True)

    def with_all(self, model: Model) -> Found:
        """Start the model's pod with all that shortens a start: vLLM's imports are done once besides."""
        return self.with_kernels(model, readAhead=True, serverEnv=self.site.server_env(*ONE_IMPORT))

    def pushed(self, model: Model) -> Found:
        """Make a model, lock and pack it, predict its digest, and send its layers to the registry."""
        site, weights = self.site, self.site.weights(model)
        site.ready()
        require_space(site.folder, COPIES * model.size, f"{COPIES} copies of {model.like}")
        found: Found = {"bytes": model.size, "seconds": {}, "commands": []}

        def timed(what: str, *arguments: str) -> str:
            done = site.modelcar(f"{model.stack}-{what}", *arguments)
            found["seconds"][what] = round(done.seconds, 1)
            found["commands"].append(f"python -m modelcar {' '.join(arguments)}")
            site.say(f"   {what}: {done.seconds:.1f} s")
            return done.said

        timed("made-up", "made-up", str(weights), "--like", model.like)
        timed("lock", "lock", model.name, "--folder", str(weights), "--license", "Apache-2.0")
        found["digest"] = timed("digest", "digest", model.name).strip()
        # From here on the layout has the weights; and then the registry has, where `up` finds the layers.
        shutil.rmtree(weights)
        timed("push", "push", model.name, f"{site.registry}/{model.name}", "--insecure")
        shutil.rmtree(layout_path(site.project, model.name))
        return found

    def is_pushed(self, model: Model) -> bool:
        """Tell whether this machine's registry has the layers that the lock tells of."""
        try:
            return self._in_registry(model, [layer.digest for layer in self.site.lock(model).layers])
        except EXPECTED:
            return False

    def is_served(self, model: Model) -> bool:
        """Tell whether bare vLLM can be what the pod was: its spec was kept, and the node has its files."""
        try:
            self.site.kept_pod(model.stack)
            self.site.unpacked(model)
        except EXPECTED:
            return False
        return True

    def is_saved(self, model: Model, cards: int = 1) -> bool:
        """Tell whether the lock has kernels for so many cards, and this machine's registry their layers."""
        try:
            found = [one.digest for one in self.site.lock(model).kernels if one.target.count == cards]
            return bool(found) and self._in_registry(model, found)
        except EXPECTED:
            return False

    def _in_registry(self, model: Model, digests: Sequence[str]) -> bool:
        self.site.ready()
        target = Target(self.site.registry, model.name, insecure=True)
        image = modelcar_image(self.site.lock(model), read_base(self.site.architecture))
        return layers_there(image, target) >= set(digests)

    def served(self, model: Model) -> Found:
        """Deploy a model by `pulumi up`, validate it, ask how its start went, and measure what it serves."""
        site, name = self.site, model.stack
        self._make_room()
        site.select(name)
        site.configure(name, model)
        up = site.up(name, f"{name}-up")
        site.say(f"   pulumi up: {up.seconds:.1f} s")
        pod = site.ready_pod(name)
        site.keep_pod(name, pod)
        found: Found = {"up": round(up.seconds, 1), "command": "pulumi up", "image": _image(pod)}
        told = site.operate(f"{name}-validate", "validate", name)
        found["validate"] = [f"{line['name']}: {line['evidence']}" for line in told["lines"]]
        found["coldstart"] = site.operate(f"{name}-coldstart", "coldstart", name)
        if site.gpus:
            found["evidence"] = evidence(site.cluster(name), pod)
        return found | {"rates": self.rates(model, pod, repeats=1)}

    def in_turn(self, model: Model) -> Found:
        """Measure what a pod and bare vLLM serve at the same time."""
        self._make_room()
        scale = self.scale
        return in_turn(self.site, model, scale.streams, scale.tokens, scale.turns)

    def rates(self, model: Model, pod: JSON, repeats: int | None = None) -> list[Found]:
        """Measure tokens per second of a pod."""
        streams, tokens, most = self._asked
        return self._told(rates(self.site.server(model.stack, pod), streams, tokens, repeats or most))

    @property
    def _asked(self) -> tuple[tuple[int, ...], int, int]:
        return self.scale.streams, self.scale.tokens, self.scale.repeats

    def _told(self, found: list[Found]) -> list[Found]:
        for one in found:
            self.site.say(f"   {one['streams']} at once: {one['tokensPerSecond']:.1f} tokens/s")
        return found

    def bare(self, model: Model, log: str) -> Found:
        """Start the pod's server by itself, with the files that the pod reads, and measure it."""
        site = self.site
        self._make_room()
        several = site.gpus and len(site.gpus.cards) > 1
        cards = [site.gpus.cards[0].index] if site.gpus and several else None
        files = site.unpacked(model)
        dropped = settle()
        with bare(
            site.children, log, site.kept_pod(model.stack), files, site.folder / "scratch", cards
        ) as start:
            server = site.bare_server(model.stack, start.url)
            first = start.health + first_token(server)
            site.say(f"   bare: answers after {start.health:.1f} s, first token after {first:.1f} s")
            return {
                "pageCacheDropped": dropped,
                "limited": start.limited,
                "health": round(start.health, 2),
                "firstToken": round(first, 2),
                "server": [asdict(phase) for phase in server_phases(site.children.said(log), start.began)],
                "rates": self._told(rates(server, *self._asked)),
            }

    def pod(self, model: Model, **own: Any) -> Found:
        """Start the model's pod on a node that has its image, as `make wake` does, and measure it.

        own: settings beside the report's.
        """
        site, name = self.site, model.stack
        self._make_room()
        site.select(name)
        site.configure(name, model, **own)
        dropped = settle()
        command = site.up_command(name)
        with site.children.background(f"{name}-wake", command, folder=site.project, env=site.variables) as up:
            found = self._watched(name, up)
            if up.wait():
                raise Failed(f"pulumi up: {last_words(site.children.said(f'{name}-wake'))}")
        pod = site.ready_pod(name)  # not kept: bare vLLM is what `served` declared, and no variant of it
        site.say(
            f"   pod: answers after {found['health']:.1f} s, first token after {found['firstToken']:.1f} s"
        )
        found["coldstart"] = site.operate(f"{name}-coldstart", "coldstart", name)
        site.keep_log(name, pod)
        found["answers"] = answers(site.server(name, pod), self.scale.answers)
        # Compiled or copied, kernels are the same: one look at their speed will do.
        repeats = 1 if "kernels" in own else None
        return {"pageCacheDropped": dropped, **found, "rates": self.rates(model, pod, repeats)}

    def _watched(self, name: str, up: subprocess.Popen[bytes]) -> Found:
        """Time a pod from its making to its first token; Kubernetes itself notes whole seconds."""
        cluster = self.site.cluster(name)

        def pod() -> JSON | None:
            if up.poll():
                raise Failed(f"pulumi up: {last_words(self.site.children.said(f'{name}-wake'))}")
            return next(iter(self.site.pods(cluster, name)), None)

        self.site.wait(pod)
        made, health = time.monotonic(), 0.0
        while True:
            now = pod()
            if (
                now
                and not health
                and now["status"].get("podIP")
                and is_healthy(self.site.server(name, now).url)
            ):
                health = time.monotonic() - made
            if now and is_ready(now):
                break
            time.sleep(POLL)
        ready = time.monotonic() - made
        first = ready + first_token(self.site.server(name, now))
        return {"health": round(health or ready, 2), "ready": round(ready, 2), "firstToken": round(first, 2)}

    def imports(self, models: Sequence[Model]) -> Found:
        """Time the imports of the pods' server, by themselves and beside the largest model that is here."""
        self._make_room()
        python, env = self._server()
        scratch = self.site.folder / "scratch"
        try:
            weights = self._largest(models)
            found = imports(
                self.site.children, python, env, self.site.folder, scratch, self.scale.imports, weights
            )
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        for kind, seconds in found["seconds"].items():
            self.site.say(f"   {kind}: {', '.join(f'{one:.1f} s' for one in seconds)}")
        return found

    def _largest(self, models: Sequence[Model]) -> Path | None:
        """Return the files of the largest model that the node has unpacked; None where it has none."""
        for model in sorted(models, key=lambda one: one.size, reverse=True):
            try:
                return self.site.unpacked(model)
            except EXPECTED:
                continue
        return None

    def _server(self) -> tuple[str, dict[str, str]]:
        """Return the Python of the pods' server, and its variables on this machine."""
        settings = json.loads(self.site.instance.settings_file.read_text())
        env = dict(entry.split("=", 1) for entry in settings["serverEnv"]) | {"HOME": str(self.site.folder)}
        return settings["serverCommand"][0], env

    # --- two GPUs ---------------------------------------------------------------------------------

    def two_gpus(self, models: Sequence[Model]) -> list[Step]:
        """Return the steps of two GPUs in one pod, without and with kernels."""
        if not models:
            return []
        largest = max(models, key=lambda model: model.size)
        unfit = "" if self.cards > 1 else f"this machine has {self.cards or 'no'} GPU"
        needs = (f"{largest.like}/pushed",)
        bound = self.scale.start + 150
        return [
            Step(
                "two-gpus",
                lambda: self.split(largest),
                bound,
                90,
                needs,
                unfit=unfit,
                standing=lambda: self.is_saved(largest, 2),
            ),
            Step(
                "two-gpus-kernels", lambda: self.split_again(largest), bound, 60, ("two-gpus",), unfit=unfit
            ),
        ]

    def split(self, model: Model) -> Found:
        """Serve a model with gpuCount 2 and nothing else said: each layer is shared by both cards."""
        site, name = self.site, model.stack
        self._make_room()
        site.select(name)
        site.configure(name, model, gpuCount=2)
        up = site.up(name, f"{name}-two-gpus")
        pod = site.ready_pod(name)
        box = next(one for one in pod["spec"]["containers"] if one["name"] == "kserve-container")
        found: Found = {"model": model.like, "up": round(up.seconds, 1), "arguments": box["args"]}
        if site.gpus:
            found["evidence"] = evidence(site.cluster(name), pod)
        found["coldstart"] = site.operate(f"{name}-coldstart-two", "coldstart", name)
        found["saved"] = kernels.save(site, model)["layer"]
        return found | {"rates": self.rates(model, pod)}

    def split_again(self, model: Model) -> Found:
        """Start it once more, each rank with what it has compiled before."""
        return self.with_kernels(model, gpuCount=2)

    # --- bad input --------------------------------------------------------------------------------

    def bad_input(self, models: Sequence[Model]) -> list[Step]:
        """Return the steps in which `up` has to fail, and to say why."""
        if not models:
            return []
        smallest = min(models, key=lambda model: model.size)
        needs = (f"{smallest.like}/pushed",)
        unfit = "" if self.cards else "this machine has no GPU"
        return [
            Step("too-many-gpus", lambda: self.too_many(smallest), 200, 60, needs),
            # The start's own time, 60 s that `up` waits on top of it, and the removal.
            Step("filled-card", lambda: self.filled(smallest), 300, FILLED + 100, needs, unfit=unfit),
        ]

    def too_many(self, model: Model) -> Found:
        """Ask for one GPU more than the machine has."""
        wanted = self.cards + 1
        own: dict[str, Any] = {"gpuCount": wanted, "startTimeoutSeconds": 20}
        if self.cards:  # whatever number of heads the model has: its layers are split, not each of them
            own["vllm"] = {"pipelineParallelSize": wanted, "maxModelLen": WINDOW}
        self._make_room()
        return self._refused("too-many", model, ("nvidia.com/gpu",), own)

    def filled(self, model: Model) -> Found:
        """Serve while another process holds the card's memory."""
        site = self.site
        self._make_room()
        python, env = self._server()
        command = [python, "-c", _FILL]
        with site.children.service("filler", command, folder=site.folder, env=env) as filler:

            def held() -> str | None:
                said = site.children.said("filler")
                if filler.poll() is not None:
                    raise Failed(f"the card was not filled: {last_words(said)}")
                return next((line for line in said.splitlines() if "filled [" in line), None)

            line = site.wait(held, 0.2)
            own = {"startTimeoutSeconds": FILLED}
            found = self._refused("filled-card", model, ("the card is filled", "gpumemoryutilization"), own)
        return {"held": line.partition("filled ")[2], **found}

    def _make_room(self) -> None:
        """Let every model of the report have no pod."""
        self.site.ready()
        for name in self.site.stacks():
            if self.site.pods(self.site.cluster(name), name):
                self.site.select(name)
                self.site.scale_down(name)

    def _refused(self, name: str, model: Model, words: Sequence[str], own: dict[str, Any]) -> Found:
        site = self.site
        site.select(name)
        site.configure(name, model, **own)
        try:
            done = site.up(name, f"{name}-up", check=False)
            for pod in site.pods(site.cluster(name), name):
                site.keep_log(name, pod)
        finally:
            site.destroy(name)
        if not done.status:
            raise Failed(f"`pulumi up` said nothing of it: {last_words(done.said)}")
        if not any(word in done.said.casefold() for word in words):
            raise Failed(f"`pulumi up` failed without the reason: {last_words(done.said)}")
        return {"seconds": round(done.seconds, 1), "said": reasons(done.said)}


def reasons(said: str) -> list[str]:
    """Return why `pulumi up` failed, in its own words: reasons and fixes, each once, without its progress."""
    lines = [line.strip() for line in said.splitlines()]
    told = [line for line in lines if line.startswith(("error: ", "reason: ", "fix: ", "allowed: "))]
    return [line for line in dict.fromkeys(told) if not _SUMS_UP.fullmatch(line)][:8]


def _image(pod: JSON) -> str:
    return str(model_image(pod))
