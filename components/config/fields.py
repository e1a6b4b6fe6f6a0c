"""Types of single settings: each refuses with what is allowed and the fix."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from components.config.quantities import QUANTITY
from components.config.quantities import quantity as quantity
from modelcar import hub_address, lock, mirror_names, oci_names


class Refused(ValueError):
    """A value that is not allowed; carries what is allowed and the fix."""

    def __init__(self, why: str, allowed: str, fix: str) -> None:
        """Say why, what is allowed instead, and how to get there."""
        super().__init__(why)
        self.why, self.allowed, self.fix = why, allowed, fix


def matches(pattern: re.Pattern[str], why: str, allowed: str, fix: str) -> BeforeValidator:
    """Return a validator of texts that match a pattern as a whole."""

    def check(value: Any) -> Any:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise Refused(why, allowed, fix)
        return value

    return BeforeValidator(check)


def _pinned(value: Any) -> Any:
    if isinstance(value, str) and oci_names.PINNED.fullmatch(value):
        return value
    if isinstance(value, str) and "@" not in value:
        why = "names an image by tag, which somebody else's push can change"
        fix = f"take the digest of it: docker buildx imagetools inspect {value}"
        raise Refused(why, "IMAGE@sha256:<64 hexadecimal digits>", fix)
    raise Refused(
        "not an image by digest", "IMAGE@sha256:<64 hexadecimal digits>", "copy it as the registry shows it"
    )


def is_model(value: Any) -> bool:
    """Tell whether a value can name a locked model."""
    return isinstance(value, str) and bool(value.endswith("/model.lock") or lock.NAME.fullmatch(value))


def _model(value: Any) -> Any:
    if is_model(value):
        return value
    raise Refused(
        "not a model",
        "a folder of modelcar/models, or the path of a model.lock",
        "python -m modelcar lock NAME makes one",
    )


def _endpoint(value: Any) -> Any:
    if fault := hub_address.fault_of_address(value):
        raise Refused(*fault)
    return hub_address.plain(value)


def _registry(value: Any) -> Any:
    allowed, fix = (
        "HOST[:PORT]/PATH, in lower case, without scheme and tag",
        "for example europe-docker.pkg.dev/PROJECT/REPO",
    )
    if not isinstance(value, str) or not oci_names.REGISTRY.fullmatch(value):
        why = "has a scheme" if isinstance(value, str) and "://" in value else "not a place in a registry"
        raise Refused(why, allowed, fix)
    return value


def _mirror(value: Any) -> Any:
    if fault := mirror_names.fault_of_mirror(value):
        raise Refused(fault[0], mirror_names.ALLOWED, fault[1])
    return value


_USER = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<user>[^/?#\s]*)@", re.IGNORECASE)


def without_credentials(fix: str) -> AfterValidator:
    """Return a validator of addresses that are written where others read them. A user of SSH is no secret."""

    def check(text: str) -> str:
        found = _USER.match(text)
        if found and (":" in found["user"] or "ssh" not in found["scheme"].lower()):
            raise Refused("holds credentials", "an address without user and password", fix)
        return text

    return AfterValidator(check)


def quantity_field(example: str) -> BeforeValidator:
    """Return a validator of Kubernetes quantities above zero."""

    def check(value: Any) -> Any:
        text = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
        if not isinstance(text, str) or not QUANTITY.fullmatch(text) or quantity(text) <= 0:
            raise Refused(
                "not a Kubernetes quantity above zero", f"for example {example}", "use Ki, Mi, Gi or m"
            )
        return text

    return BeforeValidator(check)


def network_field(example: str, everything: Refused) -> AfterValidator:
    """Return a validator of networks in CIDR notation; the one of all addresses is refused as told."""

    def check(text: str) -> str:
        try:
            network = ip_network(text)
        except ValueError as error:
            raise Refused(str(error), f"a network such as {example}", "write ADDRESS/BITS") from None
        if network.prefixlen == 0:
            raise Refused(everything.why, everything.allowed, everything.fix)
        return text

    return AfterValidator(check)


_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
#: KServe's validating webhook: IsvcNameFmt.
SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
#: A DNS subdomain, as most of Kubernetes' objects are called by.
SUBDOMAIN = rf"{_LABEL.pattern}(\.{_LABEL.pattern})*"
_LABEL_FIX = "use lower-case letters, digits and '-', starting and ending with a letter or digit"

ImageName = Annotated[
    str,
    matches(
        oci_names.NAME, "not a repository name", "lower case, digits, and single . _ - between", _LABEL_FIX
    ),
]
ServiceName = Annotated[
    str,
    matches(
        SERVICE, "KServe refuses this name", f"a match of {SERVICE.pattern}", "start with a letter; no dots"
    ),
]
Label = Annotated[
    str, matches(_LABEL, "Kubernetes refuses this name", f"a match of {_LABEL.pattern}", _LABEL_FIX)
]
SecretName = Annotated[
    str,
    matches(
        re.compile(rf"(?=.{{1,253}}$){SUBDOMAIN}"),
        "Kubernetes refuses this name",
        "lower-case letters, digits, '-' and '.', at most 253; a letter or digit at both ends of each part",
        "take it from `kubectl get secrets`",
    ),
]
Digest = Annotated[
    str,
    matches(
        oci_names.DIGEST,
        "not a digest",
        "sha256:<64 hexadecimal digits>",
        "python -m operations revisions --stack … lists those that were served",
    ),
]
HttpPath = Annotated[
    str,
    matches(
        re.compile(r"/[A-Za-z0-9._~/-]*"),
        "not the path of an address",
        "a path such as /health",
        "write the path that answers 200 once the server can serve",
    ),
]
PinnedImage = Annotated[str, BeforeValidator(_pinned)]
ModelName = Annotated[str, BeforeValidator(_model)]
Endpoint = Annotated[str, BeforeValidator(_endpoint)]
Registry = Annotated[str, BeforeValidator(_registry)]
Mirror = Annotated[str, BeforeValidator(_mirror)]
StackName = Annotated[
    str,
    matches(
        re.compile(r"[^/\s]+/[^/\s]+/[^/\s]+"),
        "not a stack",
        "ORGANIZATION/PROJECT/STACK",
        "see `pulumi stack ls`; with a backend of files or a bucket, the organization is `organization`",
    ),
]
