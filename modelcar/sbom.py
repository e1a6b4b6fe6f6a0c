"""The bill of materials of a model: what it is, where it is from, and its files by digest. CycloneDX 1.6.

https://cyclonedx.org/docs/1.6/json. The same lock gives the same bytes: there is no clock in it, and the
serial number follows from the lock.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from modelcar.kernels import FOLDER
from modelcar.lock import HubSource, Lock

#: Media type of the document, and type of what it is attached as.
SBOM_TYPE = "application/vnd.cyclonedx+json"
#: The model's property by which this project's own documents are known: the digest of the lock.
LOCK_PROPERTY = "modelcar:lock"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def sbom(lock: Lock) -> bytes:
    """Return the bill of materials of a locked model, as JSON."""
    model = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=lock.name,
        bom_ref="model",
        version=lock.source.revision if isinstance(lock.source, HubSource) else lock.digest,
        purl=_purl(lock),
        licenses=[LicenseFactory().make_from_string(lock.license)] if lock.license else None,
        external_references=_references(lock),
        properties=[Property(name=LOCK_PROPERTY, value=lock.digest)],
    )
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, lock.digest),
        metadata=BomMetaData(component=model, timestamp=_EPOCH),
    )
    urls = {extra.path: extra.url for extra in lock.extra}
    for number, file in enumerate(lock.files):
        bom.components.add(
            Component(
                type=ComponentType.FILE,
                name=file.path,
                bom_ref=f"file-{number}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)],
                properties=[Property(name="modelcar:size", value=str(file.size))],
                external_references=_from(urls.get(file.path)),
            )
        )
    for entry in lock.kernels:
        bom.components.add(
            Component(
                type=ComponentType.DATA,
                name=f"{FOLDER}/{entry.name}",
                bom_ref=f"kernels-{entry.name}",
                version=f"vLLM {entry.vllm}, torch {entry.torch}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=entry.digest.removeprefix("sha256:"))],
                properties=[Property(name="modelcar:server", value=entry.target.server)],
            )
        )
    bom.register_dependency(model, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=1).encode()


def is_own(document: Any) -> bool:
    """Tell whether a document is a bill of materials of this project, and not another tool's."""
    for key in ("metadata", "component", "properties"):
        document = document.get(key) if isinstance(document, dict) else None
    properties = document if isinstance(document, list) else []
    return any(isinstance(one, dict) and one.get("name") == LOCK_PROPERTY for one in properties)


def _purl(lock: Lock) -> PackageURL | None:
    """The model as package URLs name it (purl specification, type huggingface)."""
    if not isinstance(lock.source, HubSource):
        return None
    owner, _, name = lock.source.repository.partition("/")
    return PackageURL("huggingface", owner, name, lock.source.revision)


def _references(lock: Lock) -> list[ExternalReference]:
    if not isinstance(lock.source, HubSource):
        return []
    return _from(f"https://huggingface.co/{lock.source.repository}/tree/{lock.source.revision}")


def _from(url: str | None) -> list[ExternalReference]:
    return [ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(url))] if url else []
