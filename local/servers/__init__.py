"""The model servers of the local stack, as environments of the host that a pod mounts read-only.

No container image with a model server can be had offline, and building one of several GB on every
machine would be slow. So the local stack's image holds a static busybox only, and the server comes from
a Python environment on the host, mounted into the pod at the same path:

- `vllm-cuda`: vLLM 0.23.0, the engine of the other stacks, for a machine with an NVIDIA GPU;
- `vllm`: the same in its CPU build;
- `transformers`: a small server of ours (transformers_server.py) with the same endpoints and flags, for
  machines with too little memory or disk for vLLM.

Making the locks again (run outside of any uv project, so that no project's settings take part), for NAME
in vllm and transformers:

    uv pip compile --universal --python-version 3.11 --overrides overrides.txt --excludes excludes.txt \
        --generate-hashes --no-emit-index-url --no-header --no-annotate NAME.in -o NAME.lock

and for vllm-cuda with `--excludes vllm-cuda-excludes.txt` alone, without overrides.
"""

from __future__ import annotations

from local.servers.choice import KINDS, RELEASES, choose
from local.servers.environment import ServerEnvironment, ensure

__all__ = ["KINDS", "RELEASES", "ServerEnvironment", "choose", "ensure"]
