"""A stack: its models, each with its settings, and what they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from components.config.google import GoogleSettings
from components.config.referenced_cluster import at_referenced
from components.config.secrets import Secrets
from components.config.settings import Settings
from modelcar.errors import refuse

#: Days that the images of a removed model are kept, where the stack does not say.
KEEP_REMOVED_DAYS = 30
#: Images that are brought and built at the same time, where the stack does not say.
PARALLEL_BUILDS = 2


@dataclass(frozen=True)
class Stack:
    """What a stack is told.

    models: the settings of each, in the order of the list; never empty.
    listed: whether the stack has a list; without one its outputs are those of its only model too.
    parallel_builds: images that are brought and built at the same time.
    google: the Google side as the stack has it; a model's own has the model's pool as `nodes`, and the
        cluster that a stack reference names, once that was read.
    keep_removed_days: so long `make prune` keeps the images of a removed model.
    service_named: whether the services' names stay when a model is changed: the stack says its service's,
        or has a list, whose entries have names.
    secrets: what it says as Pulumi secrets.
    """

    models: tuple[Settings, ...]
    listed: bool = False
    parallel_builds: int = PARALLEL_BUILDS
    google: GoogleSettings | None = None
    keep_removed_days: int = KEEP_REMOVED_DAYS
    service_named: bool = True
    secrets: Secrets = field(default_factory=Secrets)

    @property
    def shared(self) -> Settings:
        """What all models say alike: registry, cluster, namespace, delivery."""
        return self.models[0]

    def at_cluster(self, outputs: Mapping[str, Any]) -> Stack:
        """Return the same stack, whose models know the cluster that `google.cluster.stackReference` names.

        What the stack declares does not change: `google` stays as it is.

        Args:
            outputs: of the stack that it names.

        Raises:
            InputError: they name no cluster.
        """
        models = tuple(
            model.model_copy(update={"google": at_referenced(model.google, outputs)})
            if model.google
            else model
            for model in self.models
        )
        return replace(self, models=models)

    def model(self, name: str | None) -> Settings:
        """Return a model by name; where there is only one, nobody has to name it.

        Raises:
            InputError: there is no such model, or it has to be named.
        """
        names = [settings.key for settings in self.models]
        if name is None and len(names) == 1:
            return self.models[0]
        for settings in self.models:
            if settings.key == name:
                return settings
        found = (
            "not said, and the stack has several" if name is None else f"{name}: the stack has no such model"
        )
        raise refuse("model", found, allowed=", ".join(names), fix=f"name one: --model {names[0]}")

    def on_pool(self, pool: str) -> tuple[Settings, ...]:
        """Return the models whose pods land on a pool."""
        return tuple(m for m in self.models if m.google is not None and m.google.nodes.name == pool)
