"""Started by Pulumi for programs in other languages."""

from modelcar_kserve.provider import host

host()
