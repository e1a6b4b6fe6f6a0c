"""A `make up` that is killed in the middle: the next one succeeds, whatever state it finds."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import psutil
import pytest
import yaml

from tests.conftest import Platform


def plugins(folder: str) -> list[str]:
    """Return the command lines of Pulumi plugins that work for this checkout."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MODELCAR_RUN", "").startswith(folder):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


@pytest.mark.extended
def test_a_killed_up_is_followed_by_one_that_succeeds(platform: Platform) -> None:
    checkout = platform.checkout
    checkout.make("up")
    stack = checkout.folder / "Pulumi.local.yaml"
    original = stack.read_text()
    document = yaml.safe_load(original)
    document["config"]["modelcar:serviceName"] = "renamed"
    stack.write_text(yaml.safe_dump(document))
    try:
        with subprocess.Popen(
            ["make", "up"],
            cwd=checkout.folder,
            env=checkout.environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as running:
            assert running.stdout
            # The engine is waiting for the new service, holding the lock, with a create under way.
            assert any("InferenceService renamed creating" in line for line in running.stdout)
            os.killpg(running.pid, signal.SIGKILL)
        output = checkout.make("up").stdout
        assert "released the lock of a run that was killed" in output
        evidence = json.loads((checkout.folder / ".local/local/summary.json").read_text())
        assert evidence["outputs"]["serviceName"] == "renamed"
        assert plugins(str(checkout.folder)) == [], "no plugin outlives its engine"
        assert evidence["models"][0]["answer"]["text"]
        there = platform.kubectl("get", "inferenceservices", "-A", "-o", "name").split()
        assert "inferenceservice.serving.kserve.io/qwen-oci" not in there, "the renamed one is gone"
    finally:
        stack.write_text(original)
        checkout.make("up")
