"""Types of single settings: each refuses with what is allowed and the fix."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from components.config.quantities import LARGEST, QUANTITY
from components.config.quantities import quantity as quantity
from modelcar import hub_address, lock, mirror_names, oci_names

#: Marks a field whose values may hold secrets: no message shows them.
MAY_HOLD_SECRETS = "may hold secrets"


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
        host, slash, _ = value.partition("@")[0].partition("/")
        if slash and ":" in host and (fault := oci_names.fault_of_host(value)):
            raise Refused(fault[0], "HOST[:PORT]/PATH@sha256:<64 hexadecimal digits>", fault[1])
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
    if fault := oci_names.fault_of_registry(value):
        raise Refused(*fault)
    return value


def _login(value: Any) -> Any:
    allowed = "HOST[:PORT], or as Docker's configuration calls it (https://index.docker.io/v1/)"
    found = _LOGIN.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise Refused("not a registry's host", allowed, "write it as images of the registry begin")
    if "*" not in found["host"] and (fault := oci_names.fault_of_host(found["host"])):
        raise Refused(fault[0], allowed, f"write {found['host']}:443 for a host of this name")
    return value


#: https://kubernetes.io/docs/concepts/containers/images/#config-json
_LOGIN = re.compile(r"(https?://)?(?P<host>[A-Za-z0-9.*-]+(:[0-9]+)?)(/[^\s@]*)?")


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


def _quantity(value: Any, allowed: str, fix: str) -> re.Match[str]:
    """Return a Kubernetes quantity above zero, taken apart."""
    text = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    found = QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if not found or not 0 < quantity(found[0]) <= LARGEST:
        raise Refused("not a Kubernetes quantity above zero", allowed, fix)
    return found


def _processors(value: Any) -> str:
    allowed = f"1m to {_MOST_CPUS}, for example 4 or 500m"
    found = _quantity(value, allowed, "use a number, or thousandths with m")
    text = found[0]
    if found["unit"] not in {None, "m"} or not _LEAST_CPUS <= quantity(text) <= _MOST_CPUS:
        likely = found["number"] if quantity(found["number"]) <= _MOST_CPUS else ""
        fix = f"did you mean {likely}?" if likely and likely != text else "correct it"
        raise Refused("not a number of processors", allowed, fix)
    return text


def memory_field(example: str) -> BeforeValidator:
    """Return a validator of sizes of memory, as Kubernetes writes them."""

    def check(value: Any) -> Any:
        allowed = f"1Mi or more, for example {example}"
        found = _quantity(value, allowed, "use Ki, Mi or Gi")
        text = found[0]
        if found["unit"] == "m" or quantity(text) < _LEAST_MEMORY:
            why = "counts thousandths of a byte" if found["unit"] == "m" else "a size in bytes, below 1Mi"
            unit = {"m": "Mi", None: "Gi"}.get(found["unit"])
            fix = f"did you mean {found['number']}{unit}?" if unit else "use Ki, Mi or Gi"
            raise Refused(why, allowed, fix)
        return text

    return BeforeValidator(check)


def network_field(example: str, everything: Refused) -> AfterValidator:
    """Return a validator of networks in CIDR notation; the one of all addresses is refused as told."""

    def check(text: str) -> str:
        allowed = f"a network such as {example}"
        try:
            network = ip_network(text)
        except ValueError as error:
            raise Refused(str(error), allowed, "write ADDRESS/BITS") from None
        # Python knows more ways to write one than Kubernetes and GKE do.
        if not _CIDR.fullmatch(text):
            fix = "take the zone off" if "%" in text else f"write {network}"
            raise Refused("not in CIDR notation", allowed, fix)
        if network.prefixlen == 0:
            raise Refused(everything.why, everything.allowed, everything.fix)
        return text

    return AfterValidator(check)


def are_everything(networks: Iterable[str]) -> bool:
    """Tell whether networks together are all addresses: 0.0.0.0/1 and 128.0.0.0/1 are."""
    found = [ip_network(text) for text in networks]
    four = collapse_addresses(one for one in found if isinstance(one, IPv4Network))
    six = collapse_addresses(one for one in found if isinstance(one, IPv6Network))
    return any(one.prefixlen == 0 for one in four) or any(one.prefixlen == 0 for one in six)


def require_narrow(networks: Iterable[str], everything: Refused) -> None:
    """Refuse networks that together are all addresses, as one that is by itself.

    Raises:
        Refused: they are.
    """
    if are_everything(networks):
        raise Refused(f"{everything.why}: together they are all networks", everything.allowed, everything.fix)


def not_everything(everything: Refused) -> AfterValidator:
    """Return a validator of lists of networks: those that together are all addresses are refused as told."""

    def check(networks: tuple[str, ...]) -> tuple[str, ...]:
        require_narrow(networks, everything)
        return networks

    return AfterValidator(check)


_CIDR = re.compile(r"[0-9A-Fa-f.:]+/[0-9]+")
#: Processors: a thousandth, and what no machine has more of. Bytes that no container runs in less than.
_LEAST_CPUS, _MOST_CPUS, _LEAST_MEMORY = quantity("1m"), 1000, 2**20
#: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
LONGEST_LABEL, LONGEST_SUBDOMAIN = 63, 253

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
#: KServe's validating webhook: IsvcNameFmt.
SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
#: A DNS subdomain, as most of Kubernetes' objects are called by.
SUBDOMAIN = rf"{_LABEL.pattern}(\.{_LABEL.pattern})*"


def _at_most(longest: int, pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?=.{{1,{longest}}}$){pattern}")


LABEL_NAME = _at_most(LONGEST_LABEL, _LABEL.pattern)
SUBDOMAIN_NAME = _at_most(LONGEST_SUBDOMAIN, SUBDOMAIN)
_LABEL_FIX = "use lower-case letters, digits and '-', starting and ending with a letter or digit"

ImageName = Annotated[
    str,
    matches(
        oci_names.NAME, "not a repository name", "lower case, digits, and single . _ - between", _LABEL_FIX
    ),
]


def _name(pattern: re.Pattern[str], longest: int | None, who: str, fix: str) -> BeforeValidator:
    """Return a validator of names of at most so many characters."""
    limited = _at_most(longest, pattern.pattern) if longest else pattern
    allowed = f"a match of {pattern.pattern}" + (f", at most {longest} characters" if longest else "")
    return matches(limited, f"{who} refuses this name", allowed, fix)


ServiceName = Annotated[str, _name(SERVICE, LONGEST_LABEL, "KServe", "start with a letter; no dots")]
RuntimeName = Annotated[str, _name(SERVICE, LONGEST_SUBDOMAIN, "KServe", "start with a letter; no dots")]
Label = Annotated[str, _name(_LABEL, LONGEST_LABEL, "Kubernetes", _LABEL_FIX)]
#: A name of the stack's own, which no object in a cluster has.
ModelKey = Annotated[str, _name(_LABEL, None, "this program", _LABEL_FIX)]
#: Also a file's name: APPLICATION.yaml.
ApplicationName = Annotated[str, _name(_LABEL, 250, "Kubernetes", _LABEL_FIX)]
Processors = Annotated[str, BeforeValidator(_processors)]
SecretName = Annotated[
    str,
    matches(
        SUBDOMAIN_NAME,
        "Kubernetes refuses this name",
        "lower-case letters, digits, '-' and '.', at most 253; a letter or digit at both ends of each part",
        "take it from `kubectl get secrets`",
    ),
]
AccountName = Annotated[
    str,
    matches(
        SUBDOMAIN_NAME,
        "Kubernetes refuses this name",
        "lower-case letters, digits, '-' and '.', at most 253; a letter or digit at both ends of each part",
        "take it from `kubectl get serviceaccounts`",
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
#: What a registry's credentials are kept by.
LoginHost = Annotated[str, BeforeValidator(_login)]
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
