"""`make rehearse`: what the workflows do to `dev`, here, one after the other.

The commands are the workflows' own. The registry, cluster and server are the embedded platform's, whose node
is given a GPU in name; Google is the stand-in's file. Needs no account and changes nothing outside this
machine.
"""

from __future__ import annotations

import json
import os
from typing import Any

import yaml

from components.config.scheduling import POOL_LABEL
from local import platform, preview, stack_file
from local.instance import PROJECT, Instance
from local.pki import NODE
from local.stack import environment
from local.tool_list import Progress
from local.tools import Toolbox
from local.up import TINY_FOLDER, TINY_MODEL
from modelcar.demo_model import make_demo_model

STACK = "dev"
#: What of the embedded platform takes the place of Google's registry and cluster.
PLATFORM_KEYS = ("registry", "registryInsecure", "builder", "architecture", "serverImage", "kubeconfig")
#: A server that needs no GPU: it serves the model's files, and a page for the probes.
SERVER = "mkdir -p /tmp/www && echo ok >/tmp/www/health && ln -sfn /mnt/models /tmp/www/models && "
SERVER += "exec httpd -f -p 8080 -h /tmp/www"


class RehearsalError(Exception):
    """A step did not end as it should."""


def rehearse(instance: Instance, tools: Toolbox, progress: Progress) -> None:
    """Run every step; the platform has to be up.

    Raises:
        RehearsalError: a step ended otherwise than the workflow expects.
    """
    if "pulumi-resource-gcp" not in tools.standins:
        raise RehearsalError("the official gcp plugin is on this machine: it would reach Google")
    project = _Project(instance, tools, progress)
    project.make()
    try:
        project.step("pull request: preview of dev", preview.PREVIEW)
        project.step("main: deploy dev", preview.DEPLOY)
        project.step("every night: no drift", preview.DRIFT)
        patch = json.dumps({"spec": {"predictor": {"maxReplicas": 3}}})
        service = ("inferenceservice", project.config["serviceName"], "-n", project.config["namespace"])
        platform.kubectl(instance, tools, "patch", *service, "--type=merge", "-p", patch)
        project.step(
            "every night: somebody changed the service by hand", preview.DRIFT, finds="maxReplicas: 3 => 1"
        )
        project.step("main: deploy dev again, which puts it right", ("up", "--yes", "--refresh"))
        project.step("every night: no drift any more", preview.DRIFT)
    finally:
        project.step("clean up", ("destroy", "--yes"), policies=False)


class _Project:
    """The program in a folder of its own, with a backend of its own."""

    def __init__(self, instance: Instance, tools: Toolbox, progress: Progress) -> None:
        self.instance, self.tools, self.progress = instance, tools, progress
        self.folder = preview.scratch_project("rehearsal")
        self.config: dict[str, Any] = {}
        self.variables: dict[str, str] = {}

    def make(self) -> None:
        offered = json.loads(self.instance.settings_file.read_text())
        make_demo_model(TINY_FOLDER)
        config = stack_file.read(PROJECT / f"Pulumi.{STACK}.yaml")
        config.pop("vllm", None)  # the stand-in for the server takes no arguments of vLLM's
        self.config = config | {key: offered[key] for key in PLATFORM_KEYS}
        self.config |= {
            "model": TINY_MODEL,
            "imageName": "rehearsal",
            "namespace": "rehearsal",
            "serverCommand": ["sh", "-c", SERVER, "server"],
            "cpu": "100m",
            "memory": "64Mi",
            "sharedMemory": "16Mi",
            "kserve": {"install": False},
        }
        text = yaml.safe_dump({"config": {f"modelcar:{key}": value for key, value in self.config.items()}})
        (self.folder / f"Pulumi.{STACK}.yaml").write_text(text)
        own = environment(self.instance, self.tools)
        self.variables = {**os.environ, **own, **preview.scratch_variables(self.folder)}
        gpu = json.dumps({"status": {"capacity": {"nvidia.com/gpu": "1"}}})
        arguments = ("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", gpu)
        platform.kubectl(self.instance, self.tools, *arguments)
        # As GKE labels the nodes of a pool.
        label = f"{POOL_LABEL}={self.config['google']['nodes'].get('name', 'gpu')}"
        platform.kubectl(self.instance, self.tools, "label", "node", NODE, "--overwrite", label)
        preview.run(self.tools, self.folder, self.variables, "stack", "init", STACK, quiet=True)

    def step(self, title: str, command: tuple[str, ...], *, finds: str = "", policies: bool = True) -> None:
        """Run one command; finds: what it has to name when it fails, as it should then."""
        self.progress(f"── {title}: pulumi {' '.join(command)}")
        pack = ("--policy-pack", str(PROJECT / "policy")) if policies else ()
        arguments = (*command, "--stack", STACK, *pack)
        status, said = preview.told(self.tools, self.folder, self.variables, *arguments)
        failed = status != 0
        if failed != bool(finds):
            raise RehearsalError(f"{title}: it should have {'failed' if finds else 'succeeded'}")
        if finds not in said:
            raise RehearsalError(f"{title}: it failed, and did not say {finds!r}")
        self.progress(f"   as it should: {'refused' if failed else 'done'}")
