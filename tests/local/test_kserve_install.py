"""`modelcar:kserve.install` on a cluster that has nothing: KServe's own charts, real cert-manager, one `up`.

A platform of the test's own, whose KServe and cert-manager are pods of the charts, behind Services.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from local import kserve_charts, platform, up
from local.instance import KSERVE_VERSION, Instance, load
from local.tool_list import NEWER_KSERVE_VERSION
from local.tools import Toolbox, collect
from tests.conftest import Checkout, Platform, copied
from tests.engine.conftest import Project
from tests.engine.conftest import project as project
from tests.local.client import Client
from tests.local.conftest import until

pytestmark = pytest.mark.extended

#: Of what no stack has put there, those that Helm, KServe and cert-manager might leave.
KINDS = (
    "crd,namespace,clusterrole,clusterrolebinding,mutatingwebhookconfiguration,"
    "validatingwebhookconfiguration,apiservice"
)
IN_NAMESPACES = "role,rolebinding,lease,secret,configmap,serviceaccount,service,pod"
PLACE = "-o=jsonpath={range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}{'\\n'}{end}"


@pytest.fixture(scope="module")
def tools() -> Toolbox:
    return collect(print, extra=kserve_charts.EXTRA)


@pytest.fixture(scope="module", name="checkout")
def own_checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return copied(tmp_path_factory.mktemp("bare") / "checkout")


@pytest.fixture(scope="module")
def instance(tools: Toolbox, checkout: Checkout) -> Iterator[Instance]:
    """Start the platform without KServe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELCAR_STATE", checkout.environment["MODELCAR_STATE"])
        made = load("local")
        try:
            kserve_charts.up(made, tools, print)
            up.write_platform_settings(made)
            yield made
        finally:
            platform.down(made, print)


@pytest.fixture(scope="module", name="platform")
def bare(instance: Instance, checkout: Checkout) -> Platform:
    """Return it as tests see any platform; `project` takes this one."""
    return Platform(checkout, json.loads(instance.settings_file.read_text()), checkout.shell())


def there(platform: Platform) -> set[str]:
    """Return what the cluster holds that outlives no stack."""
    shared = platform.kubectl("get", KINDS, PLACE)
    others = platform.kubectl("get", IN_NAMESPACES, "--all-namespaces", PLACE)
    return {line for line in (shared + others).split("\n") if line and "kube-node-lease" not in line}


def controllers_image(platform: Platform) -> str:
    path = "-o=jsonpath={.spec.template.spec.containers[?(@.name=='manager')].image}"
    return platform.kubectl("-n", "kserve", "get", "deployment/kserve-controller-manager", path)


def test_one_up_installs_serves_upgrades_and_a_destroy_leaves_nothing(
    platform: Platform, project: Project, instance: Instance, tools: Toolbox
) -> None:
    def kserve(version: str) -> dict[str, object]:
        return kserve_charts.settings(instance, tools, print, version)

    empty = there(platform)
    platform.kubectl(
        "create", "namespace", "kserve"
    )  # as a chart of a former version of this program left it
    project.configure(kserve=kserve(KSERVE_VERSION))
    assert "create" in {step["op"] for step in project.preview()}
    project.up()
    assert controllers_image(platform).endswith(f":v{KSERVE_VERSION}")
    assert project.preview() == []
    project.pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes")

    project.configure(kserve=kserve(NEWER_KSERVE_VERSION))
    changed = {step["urn"].rpartition("::")[2]: step["op"] for step in project.preview()}
    assert set(changed.values()) == {"update"}, changed
    with Client.of(project) as client:
        until(lambda: client.answered > 5, 60, lambda: str(client.failed))
        project.up()
        asked = client.answered
        until(lambda: client.answered > asked + 5, 60, lambda: str(client.failed))
    assert controllers_image(platform).endswith(f":v{NEWER_KSERVE_VERSION}")
    assert client.failed == [], f"{len(client.failed)} of {client.answered} failed"
    assert project.preview() == []
    print(f"{client.answered} requests while KServe went to {NEWER_KSERVE_VERSION}, none failed")

    project.pulumi("destroy", "--yes", "--skip-preview")
    until(lambda: not there(platform) - empty, 120, lambda: str(there(platform) - empty))
