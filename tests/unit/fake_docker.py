"""`docker`, `kind` and `buildx` as far as local/kind.py uses them: what the real ones refuse, these refuse.

Installed under each of the three names. Its world is a JSON file that FAKE_DOCKER names:
containers: by name {state, labels, port, networks}; clusters: by name the nodes' containers; files: in nodes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

WORLD = Path(os.environ["FAKE_DOCKER"])


def fail(said: str, status: int = 1) -> None:
    print(said, file=sys.stderr)
    sys.exit(status)


def options(arguments: list[str], known: dict[str, int]) -> tuple[dict[str, str], list[str]]:
    """Return options with their values, and the other arguments; an unknown option is refused."""
    found: dict[str, str] = {}
    while arguments and arguments[0].startswith("-"):
        name = arguments.pop(0)
        if name not in known:
            fail(f"unknown flag: {name}")
        found[name] = arguments.pop(0) if known[name] else "true"
    return found, arguments


def docker(world: dict[str, Any], arguments: list[str]) -> None:
    if world.get("down"):
        socket = "unix:///var/run/docker.sock"
        fail(f"Cannot connect to the Docker daemon at {socket}. Is the docker daemon running?")
    command, *rest = arguments
    containers = world["containers"]
    if command == "info":
        assert rest == ["--format", "{{.ServerVersion}}"]
        print("28.2.2")
    elif command == "ps":
        found, _ = options(rest, {"--all": 0, "--filter": 1, "--format": 1})
        name = found["--filter"].removeprefix("name=^").removesuffix("$").replace("\\", "")
        assert found["--format"] == '{{.Label "modelcar.state"}}'
        if name in containers:
            print(containers[name]["labels"].get("modelcar.state", ""))
    elif command == "run":
        known = {"--detach": 0, "--label": 1, "--name": 1, "--restart": 1, "--publish": 1}
        found, [image] = options(rest, known)
        name = found["--name"]
        if name in containers:
            fail(f'docker: Error response from daemon: Conflict. The name "/{name}" is already in use.', 125)
        key, _, value = found["--label"].partition("=")
        _, port, inside = found["--publish"].split(":")
        assert (inside, image) == ("5000", "docker.io/library/registry:3")
        made = {"state": "created", "labels": {key: value}, "port": port, "networks": ["bridge"]}
        containers[name] = made  # it stays where it does not start
        if port in world["ports"]:
            said = f"Bind for 127.0.0.1:{port} failed: port is already allocated"
            said = f"docker: Error response from daemon: driver failed programming connectivity: {said}"
            WORLD.write_text(json.dumps(world))
            fail(f"{said}\n\nRun 'docker run --help' for more information", 125)
        made["state"] = "running"
        print("0123456789ab")
    elif command in {"start", "stop", "rm", "exec", "inspect"}:
        known = {"--force": 0, "--volumes": 0, "--interactive": 0, "--format": 1}
        found, [name, *more] = options(rest, known)
        if name not in containers:
            fail(f"Error response from daemon: No such container: {name}")
        one = containers[name]
        if command == "exec":
            if one["state"] != "running":
                fail(f"Error response from daemon: container {name} is not running")
            if more[:2] == ["cp", "/dev/stdin"]:
                assert "--interactive" in found, "without it there is no standard input"
                assert f"{name}:{more[2].rpartition('/')[0]}" in world["folders"]
                world["files"][f"{name}:{more[2]}"] = sys.stdin.read()
            else:
                assert more[:2] == ["mkdir", "-p"]
                world["folders"].append(f"{name}:{more[2]}")
        elif command == "rm":
            if one["state"] == "running" and "--force" not in found:
                fail(f"Error response from daemon: cannot remove container {name}: container is running")
            del containers[name]
        elif command == "inspect":
            print(json.dumps({network: {} for network in one["networks"]}))
        else:
            one["state"] = {"start": "running", "stop": "exited"}[command]
    elif [command, *rest[:1]] == ["network", "connect"]:
        network, name = rest[1:]
        if network in containers[name]["networks"]:
            fail(f"Error response from daemon: endpoint with name {name} already exists in network {network}")
        containers[name]["networks"].append(network)
    else:
        fail(f"docker: unknown command: docker {command}")


def kind(world: dict[str, Any], arguments: list[str]) -> None:
    clusters = world["clusters"]
    match arguments:
        case ["get", "clusters"]:
            print("\n".join(clusters)) if clusters else print("No kind clusters found.", file=sys.stderr)
        case ["get", "nodes", "--name", name]:
            print("\n".join(clusters.get(name, [])))
        case ["create", "cluster", "--name", name, "--kubeconfig", file, "--wait", patience]:
            assert patience.endswith("s")
            if name in clusters:
                said = f'node(s) already exist for a cluster with the name "{name}"'
                fail(f"ERROR: failed to create cluster: {said}")
            clusters[name] = [f"{name}-control-plane"]
            state = {"state": "running", "labels": {}, "networks": ["kind"]}
            world["containers"][f"{name}-control-plane"] = state
            if world.get("slow"):
                WORLD.write_text(json.dumps(world))
                fail("ERROR: failed to create cluster: failed to init node with kubeadm")
            Path(file).write_text(f"current-context: kind-{name}\n")
        case ["delete", "cluster", "--name", name, "--kubeconfig", _]:
            for node in clusters.pop(name, []):
                del world["containers"][node]
        case _:
            fail(f"ERROR: unknown command: kind {' '.join(arguments)}")


def buildx(world: dict[str, Any], arguments: list[str]) -> None:
    match arguments:
        case ["inspect" | "rm" as command, name]:
            if name not in world["builders"]:
                fail(f'ERROR: no builder "{name}" found')
            if command == "rm":
                world["builders"].remove(name)
        case _:
            fail(f"ERROR: unknown command: buildx {' '.join(arguments)}")


if __name__ == "__main__":
    there: dict[str, Any] = json.loads(WORLD.read_text())
    {"docker": docker, "kind": kind, "buildx": buildx}[Path(sys.argv[0]).name](there, sys.argv[1:])
    WORLD.write_text(json.dumps(there))
