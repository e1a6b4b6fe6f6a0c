"""`serverWritablePaths`: a server writes into a folder that its image does not have, in a read-only root."""

from __future__ import annotations

import json
import uuid

from components.manifests.service import container, pod_security, volumes
from tests.conftest import Platform
from tests.unit.test_components_settings import load

FOLDER = "/opt/packages/flashinfer_cubin/cubins/flashinfer"
SAYS = (
    f"id -u; touch {FOLDER}/link /tmp/x && echo written; touch /opt/packages/other 2>/dev/null || echo closed"
)


def test_a_folder_of_the_image_can_be_written_to(platform: Platform) -> None:
    settings = load(serverWritablePaths=[FOLDER], gpuCount=0, cpu="50m", memory="32Mi", sharedMemory="8Mi")
    server = {
        **container(settings),
        "image": platform.server_image,
        "command": ["sh", "-c", SAYS],
        "args": [],
    }
    name = f"writable-{uuid.uuid4().hex[:8]}"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{key: value for key, value in server.items() if "Probe" not in key}],
            "volumes": volumes(settings),
            **pod_security(settings),
        },
    }
    platform.kubectl("apply", "-f", "-", text=json.dumps(pod))
    try:
        platform.kubectl("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
        said = platform.kubectl("logs", name).splitlines()
    finally:
        platform.kubectl("delete", "pod", name, "--wait=false", check=False)
    assert said == ["1010", "written", "closed"]
