"""The namespace of a smoke test, which one test has at a time.

Tests of several stacks and people use the same name, and a test may have been killed. Age tells a test that
runs from one that was killed: the API server says when the namespace was made, and an annotation how long
its test may last. So nobody writes to the namespace meanwhile, which would need one more right.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from components.cluster.access import POLL, Cluster, ClusterError
from modelcar.errors import InputError, refuse

#: The label of a namespace that this test made, and may remove.
LABEL = "modelcar.io/smoke-test"
#: Its annotation: seconds after its creation in which the test that made it may still be running.
LASTS = "modelcar.io/smoke-test-seconds"
#: … where there is none: of versions before 0.4.0, with the patience that they had by default.
FORMER = 300.0
#: Seconds for the namespace to go.
REMOVAL = 120.0
#: Why a namespace does not go, above all.
_STAYS = (
    "`kubectl get apiservice` shows APIs that do not answer, which keep every namespace from going; "
    "`kubectl get namespace {name} -o yaml` what is left in it"
)
#: What one does where two tests want one namespace.
_OWN = "give this stack's tests a namespace of their own: pulumi config set modelcar:smokeNamespace NAME"


@contextmanager
def scratch_namespace(
    cluster: Cluster, name: str, patience: float, say: Callable[[str], None]
) -> Iterator[str]:
    """Make a namespace, and remove it with all that is in it, whatever happens meanwhile; yield its uid.

    Another test that runs in it is waited for: it may be another stack's, or another person's. A namespace
    that does not go at the end is told: what the test has found out, or failed by, counts all the same.

    Args:
        cluster: where it is made.
        name: of the namespace.
        patience: seconds for the slowest pod; a test is over when they and those for its removal are.
        say: told what is waited for, and what is removed.

    Raises:
        InputError: it is there and was not made by this test, another test does not end, a former one's
            namespace does not go, or rights are missing.
    """
    uid = _made(cluster, name, patience + REMOVAL, say)
    try:
        yield uid
    finally:
        try:
            cluster.remove(f"/api/v1/namespaces/{name}", REMOVAL, uid=uid)
        except ClusterError as error:
            say(f"{name} of the test is not gone: {error}. {_STAYS.format(name=name)}")


def _made(cluster: Cluster, name: str, lasts: float, say: Callable[[str], None]) -> str:
    """Return the uid of a namespace that is made as soon as no other test has one of this name."""
    path = f"/api/v1/namespaces/{name}"
    metadata = {
        "name": name,
        "labels": {LABEL: "true", "app.kubernetes.io/managed-by": "modelcar"},
        "annotations": {LASTS: str(round(lasts))},
    }
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    deadline, told = time.monotonic() + lasts, ""
    while True:
        found = cluster.get(path)
        if found is None:
            try:
                return str(cluster.create("/api/v1/namespaces", body)["metadata"]["uid"])
            except ClusterError as error:
                if error.status in {401, 403}:
                    raise _may_not(error) from None
                if error.status != 409:  # another test was quicker
                    raise
        elif LABEL not in (found["metadata"].get("labels") or {}):
            raise refuse(
                "namespace",
                f"{name} is there, and was not made by this test",
                allowed="a name that is free: the namespace is removed at the end",
                fix="choose another one: --namespace",
            )
        else:
            other, left = str(found["metadata"]["uid"]), _seconds_left(found, cluster.now())
            if "deletionTimestamp" in found["metadata"]:
                say(f"{name} is being removed: waiting until it is gone")
                _remove(cluster, name, other)
                continue
            if left <= 0:
                say(f"{name} is left of a test that was killed: removing it first")
                _remove(cluster, name, other)
                continue
            if time.monotonic() > deadline:
                raise _still_runs(name)
            if other != told:
                told = other
                say(
                    f"another smoke test runs in {name}: waiting until it ends, {left:.0f} s at most "
                    f"(if it was killed: kubectl delete namespace {name})"
                )
        time.sleep(POLL)


def _remove(cluster: Cluster, name: str, uid: str) -> None:
    path = f"/api/v1/namespaces/{name}"
    try:
        cluster.remove(path, REMOVAL, uid=uid)
    except ClusterError:
        metadata = (cluster.get(path) or {"metadata": {}})["metadata"]
        if metadata.get("uid") != uid or "deletionTimestamp" not in metadata:
            raise
        raise refuse(
            "namespace",
            f"{name} of a former test is still being removed",
            allowed="a name that is free, or becomes so",
            fix=f"{_STAYS.format(name=name)}. Or {_OWN}",
        ) from None


def _seconds_left(namespace: Mapping[str, Any], now: datetime) -> float:
    """Return how long the test that made a namespace may still run; versions before 0.4.0 did not say.

    now: by the API server's clock, which said when it was made.
    """
    metadata = namespace["metadata"]
    lasts = (metadata.get("annotations") or {}).get(LASTS, "")
    began = datetime.fromisoformat(metadata["creationTimestamp"])
    seconds = float(lasts) if lasts.isdecimal() else FORMER
    return seconds - (now - began).total_seconds()


def _may_not(error: ClusterError) -> InputError:
    return refuse(
        "namespace",
        str(error),
        allowed="the right to create namespaces, InferenceServices and ServingRuntimes, and to read pods",
        fix="ask for it (kubectl auth can-i create namespaces), or have somebody run this who has it",
    )


def _still_runs(name: str) -> InputError:
    return refuse(
        "namespace",
        f"another smoke test still runs in {name}",
        allowed="one test in a namespace at a time",
        fix=f"try again when it has ended; or {_OWN}; or, if it was killed: kubectl delete namespace {name}",
    )


def check_own(cluster: Cluster, name: str, uid: str) -> None:
    """Check that the test's namespace is still there: what it sees in another one means nothing.

    Raises:
        InputError: somebody removed it.
    """
    metadata = (cluster.get(f"/api/v1/namespaces/{name}") or {"metadata": {}})["metadata"]
    if metadata.get("uid") != uid or "deletionTimestamp" in metadata:
        raise refuse(
            "namespace",
            f"{name} was removed while the test ran in it",
            allowed="a namespace that only this test removes",
            fix=f"try again; if another test of an older version did it, {_OWN}",
        )
