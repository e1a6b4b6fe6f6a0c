"""What a stack adopts in Google: whether it is there and fit, and by which endpoint a cluster is reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import pulumi
import pulumi_gcp as gcp

from components.config.google import GoogleSettings
from components.config.problems import NAMESPACE, problem
from components.engine.stack_references import stack_reference
from components.google.cluster import Cluster, kubeconfig
from modelcar.errors import InputError, Problem

#: How a control plane is to be reached. `auto`: by its DNS name where that lets in who comes from outside of
#: Google, or where there is no address. `ip`: by its address, where it has one. `dns`: by its name.
Endpoint = Literal["auto", "dns", "ip"]


def require_adopted(google: GoogleSettings, endpoint: Endpoint = "auto") -> str | None:
    """Ask Google for what the stack adopts: cluster, repository and nodes' service account.

    Args:
        google: the settings; with the cluster that a stack reference names, where that is known.
        endpoint: by which the control plane is to be reached.

    Returns:
        The GKE version of the cluster, which new nodes get; None where the stack makes it, or nobody knows
        which one it is.

    Raises:
        InputError: with all of them that are not there, may not be seen, or are not fit.
    """
    cluster, repository, account = google.cluster, google.repository, google.nodes.service_account
    problems: list[Problem] = []
    version = None
    if cluster.name and not cluster.create:
        place = f"projects/{google.project}/locations/{google.location}/clusters/{cluster.name}"
        arguments = {"name": cluster.name, "location": google.location, "project": google.project}
        fix = "check name, location and project, or set modelcar:google.cluster.create to true"
        if cluster.stack_reference:
            fix = "check the outputs of that stack, and that its cluster is in this project"
        key = "cluster.stackReference" if cluster.stack_reference else "cluster.name"
        if found := _look(key, place, fix, gcp.container.get_cluster, arguments, problems):
            problems += _cluster_problems(google, found, endpoint)
            version = getattr(found, "master_version", None)
    if repository.existing:
        place = f"projects/{google.project}/locations/{google.region}/repositories/{repository.name}"
        arguments = {"repository_id": repository.name, "location": google.region, "project": google.project}
        fix = "check name, region and project, or set modelcar:google.repository.existing to false"
        _look("repository.name", place, fix, gcp.artifactregistry.get_repository, arguments, problems)
    if account:
        arguments = {"account_id": account, "project": google.project}
        fix = "check it, or remove it: an account is created then"
        _look("nodes.serviceAccount", account, fix, gcp.serviceaccount.get_account, arguments, problems)
    if problems:
        raise InputError(problems)
    return version


def _cluster_problems(google: GoogleSettings, found: Any, endpoint: Endpoint) -> Iterator[Problem]:
    """Yield what makes a cluster that is there unfit for this stack; found: what Google says of it."""
    cluster = google.cluster
    key = "google.cluster.stackReference" if cluster.stack_reference else "google.cluster.name"
    command = f"gcloud container clusters update {cluster.name} --location={google.location} "
    command += f"--project={google.project}"
    if getattr(found, "enable_autopilot", None):
        # https://cloud.google.com/kubernetes-engine/docs/concepts/autopilot-overview
        yield problem(
            key,
            f"{cluster.name}, an Autopilot cluster, which takes no node pools",
            "a cluster in Standard mode",
            "adopt another one, or make one (google.cluster.create); a stack without "
            f"{NAMESPACE}:google serves on this one, by {NAMESPACE}:kubeContext and {NAMESPACE}:registry",
        )
    identities = getattr(found, "workload_identity_configs", None)
    if identities is not None and not any(one.workload_pool for one in identities):
        # https://cloud.google.com/kubernetes-engine/docs/how-to/workload-identity
        yield problem(
            key,
            f"{cluster.name} has no Workload Identity Federation, and the pools of this stack need it",
            "a cluster with it",
            f"{command} --workload-pool={google.project}.svc.id.goog",
        )
    configs = getattr(found, "control_plane_endpoints_configs", None)
    if endpoint == "ip" and chosen(configs, endpoint) == "dns":
        # Without an identifier, as of a version before 0.4.0, the Kubernetes provider takes another host for
        # another cluster, and deletes what is in it.
        yield problem(
            key,
            f"{cluster.name} has lost the address by which this stack made what is in it: by its DNS name, "
            "Pulumi may make all of that anew",
            "the address, or a context of your own kubeconfig",
            f"{command} --enable-ip-access; or set {NAMESPACE}:kubeContext to "
            f"gke_{google.project}_{google.location}_{cluster.name}",
        )


def _look(
    key: str,
    place: str,
    fix: str,
    look: Callable[..., Any],
    arguments: dict[str, Any],
    problems: list[Problem],
) -> Any:
    """Return what is there; None where it is not, which is added to the problems."""
    try:
        return look(**arguments)
    except Exception as error:  # the SDK raises a bare Exception for whatever the provider says
        said = str(error).strip().splitlines()[-1]
        allowed = "one that is there, and may be seen"
        problems.append(problem(f"google.{key}", f"{place}: {said}", allowed, fix))
        return None


def adopted(
    google: GoogleSettings, endpoint: Endpoint = "ip", opts: pulumi.ResourceOptions | None = None
) -> Cluster:
    """Return the cluster that is there already, by its name or by another stack's outputs.

    Args:
        google: the settings.
        endpoint: by which it is to be reached.
        opts: with the component whose provider asks for it, and what that was told to wait for. Not the APIs:
            where a run switches another one on, its preview would know nothing of a cluster that is there.
    """
    if google.cluster.stack_reference:
        reference = stack_reference(google.cluster.stack_reference)
        name = reference.require_output("clusterName").apply(str)
        location = reference.require_output("clusterLocation").apply(str)
    else:
        name = pulumi.Output.from_input(str(google.cluster.name))
        location = pulumi.Output.from_input(str(google.location))
    asked = gcp.container.get_cluster_output(
        name=name,
        location=location,
        project=google.project,
        opts=pulumi.InvokeOutputOptions(parent=opts.parent, depends_on=opts.depends_on) if opts else None,
    )
    # What is taken from it is public, and a secret only as a part of what has the client's key.
    found = pulumi.Output.unsecret(asked)
    configs = found.control_plane_endpoints_configs
    by = configs.apply(lambda told: chosen(told, endpoint))
    dns_name = configs.apply(_dns_name)
    hosts = pulumi.Output.all(by=by, dns=dns_name, ip=found.endpoint)
    authority = found.master_auths.apply(lambda auths: str(auths[0].cluster_ca_certificate))
    reached = kubeconfig(
        name,
        hosts.apply(lambda host: str(host[host["by"]])),
        # A public authority vouches for the DNS name, and not the cluster's own.
        pulumi.Output.all(by, authority).apply(lambda told: "" if told[0] == "dns" else str(told[1])),
    )
    # Told together: the next run takes a cluster without an endpoint for one of a former version's.
    known = pulumi.Output.all(name=name, location=location, by=by)
    return Cluster(
        known.apply(lambda told: str(told["name"])),
        known.apply(lambda told: str(told["location"])),
        reached,
        by,
        dns_name.apply(lambda one: one or None),
    )


def chosen(configs: Any, endpoint: Endpoint) -> str:
    """Return the endpoint that a control plane is reached by: `dns` or `ip`.

    Args:
        configs: `control_plane_endpoints_configs` of the cluster; nothing where Google does not say.
        endpoint: that is wanted.
    """
    if not _dns_name(configs):
        return "ip"
    dns, ip = configs[0].dns_endpoint_configs[0], configs[0].ip_endpoints_configs
    if endpoint == "dns" or (ip and not ip[0].enabled):
        return "dns"
    return "dns" if endpoint == "auto" and dns.allow_external_traffic else "ip"


def _dns_name(configs: Any) -> str:
    """Return the DNS name of a control plane; empty where it has none."""
    found = configs[0].dns_endpoint_configs if configs else None
    return str(found[0].endpoint or "") if found else ""
