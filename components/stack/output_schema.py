"""What the stack tells other teams, typed: the one place that its JSON Schema and its readers follow from."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from modelcar import oci_names

#: Of the interface. The first number rises when an output goes or changes its type or meaning, the second
#: for a new one.
VERSION = "1.2"

Digest = Annotated[str, Field(pattern=f"^{oci_names.DIGEST.pattern}$")]


class _Outputs(BaseModel):
    # A reader takes outputs of a later minor version too: what it does not know is left out.
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class ModelOutputs(_Outputs):
    """One model, as the stack declares it."""

    model_digest: Digest = Field(description="Digest of the modelcar's manifest.")
    storage_uri: str = Field(
        description="What KServe serves: the image, by digest.", pattern=r"^oci://\S+@sha256:[0-9a-f]{64}$"
    )
    image_reference: str = Field(
        description="The same image by a tag, for people; nothing is served by it. Of one that was there "
        "already, and is named without a tag, by its digest."
    )
    lock_digest: str = Field(
        description="Digest of the lock's content; empty for an image that does not say, as one of others, "
        "and for one that `up` did not get to see."
    )
    model_bytes: int = Field(
        description="Bytes of the model's files; of an image that was there already, of its layers, and 0 "
        "where `up` did not get to see it (checkReachable: false).",
        ge=0,
    )
    built: bool = Field(
        True, description="Whether this stack built the image; it never deletes one that was there already."
    )
    service_name: str = Field(description="Name of the InferenceService.")
    namespace: str = Field(description="Namespace of the InferenceService.")
    served_model_name: str = Field(description="Name that clients ask the server for (`model` of a request).")
    endpoint: str = Field(
        description="Address inside of the cluster, with the cluster domain cluster.local; `/v1` follows for "
        "OpenAI's API."
    )
    deployment_mode: Literal["Standard", "Knative"] = Field(description="KServe's deployment mode.")
    idle_cost: list[str] = Field(description="What remains, and is billed, while the model has no pod.")
    node_pool: str | None = Field(None, description="Pool of the model's nodes; with Google only.")


class NodePoolOutputs(_Outputs):
    """One pool of GPU nodes."""

    disk_gb: int = Field(description="Size of each node's boot disk, in GB.")


class RemovedModelOutputs(_Outputs):
    """A model that the stack no longer has, whose images are still in the registry."""

    model: str = Field(description="What it was called in the stack.")
    since: str = Field(description="Day of the run that removed it, as YYYY-MM-DD.")
    model_digest: Digest = Field(description="What was served last.")


class StackOutputs(_Outputs):
    """Outputs of one stack."""

    schema_version: str = Field(description="Version of this interface: MAJOR.MINOR.", pattern=r"^\d+\.\d+$")
    models: dict[str, ModelOutputs] = Field(
        description="The models, by their name in the stack: of delivery cluster those that are served, but "
        "for idle ones and awaitReady false; of delivery gitops those whose image is pushed, served or not. "
        "One that failed to be updated is told as it is served on; one that never came so far is not there."
    )
    removed_models: dict[str, RemovedModelOutputs] | None = Field(
        None, description="Images of models that are gone, by REGISTRY/NAME; `make prune` deletes them."
    )
    registry: str = Field(description="HOST[:PORT]/PATH that modelcars are pushed to.")
    cluster_name: str | None = Field(None, description="Name of the cluster; with Google only.")
    cluster_location: str | None = Field(None, description="Region or zone of it; with Google only.")
    cluster_endpoint: Literal["dns", "ip"] | None = Field(
        None,
        description="By which endpoint the stack reaches the cluster's control plane, its DNS name or its "
        "address; the next run takes the same; with Google only.",
    )
    cluster_uid: str | None = Field(
        None,
        description="Uid of the namespace kube-system of a cluster that the stack itself names (kubeconfig, "
        "kubeContext or kubectl's current one): the next run is refused in another one.",
    )
    node_pools: dict[str, NodePoolOutputs] | None = Field(
        None, description="The pools of GPU nodes, by name; with Google only."
    )
    node_service_account: str | None = Field(
        None, description="E-mail of the nodes' service account; with Google only."
    )
    google_made_with: dict[str, dict[str, str]] | None = Field(
        None,
        description="By resource and setting, what repository, cluster and pools were made with and keep for "
        "life: the next run tells by it what a change makes anew; with Google only.",
    )


#: What a stack without a list of models says of its only one at the top too, for `pulumi stack output NAME`.
OF_ONLY_MODEL = tuple(
    str(field.alias)
    for name, field in ModelOutputs.model_fields.items()
    if name not in {"endpoint", "deployment_mode", "node_pool", "built"}
)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of `pulumi stack output --json`."""
    found = StackOutputs.model_json_schema(by_alias=True)
    one = ModelOutputs.model_json_schema(by_alias=True)["properties"]
    flat = {
        name: {**one[name], "description": f"Of a stack with one model: {one[name]['description']}"}
        for name in OF_ONLY_MODEL
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Outputs of a modelcar stack, version {VERSION}",
        **{key: value for key, value in found.items() if key != "title"},
        "properties": {**found["properties"], **flat},
        "x-version": VERSION,
    }


def text() -> str:
    """Return docs/outputs.schema.json as it has to be."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    print(text(), end="")
