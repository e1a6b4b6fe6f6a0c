"""A registry's API, as far as images are looked at and small things attached: manifests, blobs, referrers.

OCI distribution specification 1.1. Layers of weights are sent by `push.py`; none is ever read here.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx

from modelcar import oci_names
from modelcar.connections import trusted
from modelcar.docker_certificates import FOLDERS, tls_of
from modelcar.docker_login import LoginError, login_of
from modelcar.errors import InputError, Problem, UnansweredError, refuse
from modelcar.manifest import MANIFEST_TYPE, sha256_digest
from modelcar.registry_http import (
    MOST,
    MOST_OF_MANIFEST,
    PATIENCE,
    InTheClearError,
    NoManifestError,
    NotARegistryError,
    RegistryClient,
    asked_pause,
    checked,
    has_blob,
    is_own,
    json_of,
    list_in,
    upload_place,
)

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_DOCKER_TYPES = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
#: Bytes. Configurations and SBOMs of thousands of files have less.
MAX_BLOB = 16 * 2**20
#: Seconds. A registry may think long about a blob of many gigabytes before it answers.
TIMEOUT = httpx.Timeout(10, read=900, write=120)
#: Pages of a list of tags or referrers; registries send 50 to 1,000 on each.
MOST_PAGES = 1000
#: Bytes of such a list, all its pages together.
MOST_LISTED = 64 * 2**20
#: How registries without the API for referrers answer: the specification says 404, Artifactory 406 (it knows
#: no such Accept there), and others refuse the path or the method.
NO_API = frozenset({400, 404, 405, 406, 501})
#: Docker Hub's name in references is not the name of its registry.
HUB = frozenset({"docker.io", "index.docker.io"})
_HUB_API = "registry-1.docker.io"
#: Who asks for tokens; OAuth 2 wants a name.
CLIENT = "modelcar"

_REFERENCE = re.compile(
    r"(?P<registry>[\w.-]+(?::\d+)?)/(?P<path>[a-z0-9._/-]+?)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
#: Those that docker's credentials are an answer to (RFC 9110, 11.6.1).
_CHALLENGE = re.compile(r"(?:^|,)\s*(basic|bearer)(?![\w=])\s*(.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """Where to. registry: HOST[:PORT][/PATH]; name: repository below it. insecure: plain HTTP."""

    registry: str
    name: str
    insecure: bool = False

    @property
    def host(self) -> str:
        """HOST[:PORT] of the registry."""
        return self.registry.partition("/")[0]

    @property
    def repository(self) -> str:
        """Path of the repository."""
        path = self.registry.partition("/")[2] or (
            "library" if self.host in HUB and "/" not in self.name else ""
        )
        return f"{path}/{self.name}" if path else self.name

    @property
    def url(self) -> str:
        """Address of the repository's API."""
        host = _HUB_API if self.host in HUB else self.host
        return f"{'http' if self.insecure else 'https'}://{host}/v2/{self.repository}"


@dataclass(frozen=True)
class Manifest:
    """A manifest as the registry has it. size: bytes."""

    digest: str
    media_type: str
    content: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The manifest's JSON."""
        found: dict[str, Any] = json.loads(self.content)
        return found

    @property
    def descriptor(self) -> dict[str, Any]:
        """What points at it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.content)}


@dataclass(frozen=True)
class Refusal:
    """How a registry refuses. code, message: its own words (specification 1.1, "Error Codes")."""

    status: int
    code: str = ""
    message: str = ""

    @classmethod
    def of(cls, answer: httpx.Response) -> Refusal:
        """Return the refusal that an answer is."""
        try:
            told = answer.json()["errors"][0]
            return cls(answer.status_code, str(told.get("code", "")), str(told.get("message", ""))[:300])
        except (ValueError, LookupError, TypeError, AttributeError):
            return cls(answer.status_code)

    def __str__(self) -> str:
        told = ": ".join(filter(None, (self.code, self.message)))
        return f"the registry answers {self.status}{f' ({told})' if told else ''}"


def parse(reference: str, *, insecure: bool = False) -> tuple[Target, str]:
    """Return a reference's repository, and its digest or else its tag (`latest` where it has none).

    Raises:
        InputError: it is no reference with a registry's host.
    """
    found = _REFERENCE.fullmatch(reference.removeprefix("oci://").removeprefix("docker://"))
    port = found["registry"].partition(":")[2] or "1" if found else "0"
    name = oci_names.REGISTRY.fullmatch(f"{found['registry']}/{found['path']}") if found else None
    if not found or not name or not 0 < int(port) < 2**16:
        raise refuse(
            "reference",
            reference,
            allowed="HOST[:PORT]/PATH[:TAG][@sha256:…]",
            fix="copy it from the stack's output storageUri or imageReference",
        )
    return Target(found["registry"], found["path"], insecure), found["digest"] or found["tag"] or "latest"


def connect(
    target: Target,
    *,
    write: bool = False,
    delete: bool = False,
    timeout: float | httpx.Timeout | None = None,
    patience: float | None = None,
    mounts_from: str | None = None,
    anonymous: bool = False,
) -> RegistryClient:
    """Return a client of a repository, with the credentials that docker has, by the proxy that docker takes.

    Args:
        timeout: of a request with its pauses, in seconds, for who would rather go on without an answer.
        patience: seconds of pauses alone, for a registry that is busy.
        mounts_from: path of another repository of the registry, whose blobs are to be mounted: the registry
            asks for the right to read it in the same token.
        anonymous: without credentials, to find out what everybody may read.

    Raises:
        InputError: docker's certificates for the registry cannot be read.
    """
    patience = patience or (timeout if isinstance(timeout, float) else PATIENCE)
    tls = trusted() if target.insecure else tls_of(target.host)
    return RegistryClient(
        verify=tls,
        patience=patience,
        timeout=timeout or TIMEOUT,
        auth=RegistryAuth(
            target,
            write=write,
            delete=delete,
            patience=patience,
            tls=tls,
            mounts_from=mounts_from,
            anonymous=anonymous,
        ),
        follow_redirects=True,
    )


class Registry:
    """One repository of a registry, with the credentials that docker has. Use it in a `with`."""

    def __init__(
        self,
        target: Target,
        *,
        write: bool = False,
        delete: bool = False,
        timeout: float | None = None,
        anonymous: bool = False,
    ) -> None:
        self.target = target
        self._client = connect(target, write=write, delete=delete, timeout=timeout, anonymous=anonymous)

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        if isinstance(error, httpx.HTTPError):
            raise self.in_words(error) from None

    def manifest(self, reference: str) -> Manifest | None:
        """Return a manifest by tag or digest, None where there is none; its digest is computed here.

        Raises:
            InputError: it is another one than asked for.
            NotARegistryError: it is no manifest: what it says is of another kind than specified. A
                NoManifestError where it is what was asked for all the same.
        """
        accept = ", ".join((MANIFEST_TYPE, INDEX_TYPE, *_DOCKER_TYPES))
        url, most = f"{self.target.url}/manifests/{reference}", {MOST: MOST_OF_MANIFEST}
        answer = self._client.get(url, headers={"Accept": accept}, extensions=most)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        digest = sha256_digest(answer.content)
        try:
            known = _is_manifest(json_of(answer), answer)
        except NotARegistryError:
            known = False
        if not known:
            raise NoManifestError(answer) if digest == reference else NotARegistryError(answer)
        if reference.startswith("sha256:") and digest != reference:
            raise refuse(
                f"{self.target.registry}/{self.target.name}@{reference}",
                f"the registry sends the manifest {digest}",
                allowed="the manifest of this digest",
                fix="do not trust this registry",
            )
        return Manifest(digest, answer.headers.get("Content-Type", "").partition(";")[0], answer.content)

    def blob(self, digest: str) -> bytes:
        """Return a small blob.

        Raises:
            InputError: it is larger than MAX_BLOB, or another one than asked for.
        """
        with self._client.stream("GET", f"{self.target.url}/blobs/{digest}") as answer:
            checked(answer, httpx.codes.OK)
            content = b""
            for piece in answer.iter_raw():
                content += piece
                if len(content) > MAX_BLOB:
                    break
        if sha256_digest(content) == digest:
            return content
        raise refuse(
            f"{self.target.registry}/{self.target.name}: {digest}",
            f"{len(content)} bytes of other content",
            allowed=f"a blob of this digest, of at most {MAX_BLOB} bytes",
            fix="this is not one of this project's images, or the registry is not to be trusted",
        )

    @contextmanager
    def stream(self, digest: str) -> Iterator[Iterator[bytes]]:
        """Give a blob's bytes as they come, for who reads its beginning only; nobody compares its digest."""
        with self._client.stream("GET", f"{self.target.url}/blobs/{digest}") as answer:
            checked(answer, httpx.codes.OK)
            yield answer.iter_raw()

    def part(self, digest: str, start: int, length: int) -> bytes | None:
        """Return bytes of a blob from a place on; None where the registry gives no parts (RFC 9110, 14.2)."""
        headers = {"Range": f"bytes={start}-{start + length - 1}"}
        url = f"{self.target.url}/blobs/{digest}"
        with self._client.stream("GET", url, headers=headers) as answer:
            answer.raise_for_status()
            if answer.status_code != httpx.codes.PARTIAL_CONTENT:
                return None  # all of it would come
            content = b""
            for piece in answer.iter_raw():
                content += piece
                if len(content) >= length:
                    break
            return content[:length]

    def add_blob(self, content: bytes) -> None:
        """Send a small blob unless it is there."""
        digest = sha256_digest(content)
        if has_blob(self._client, self.target.url, digest, len(content)):
            return
        answer = self._client.put(
            upload_place(self._client, self.target.url, digest),
            content=content,
            headers={"Content-Type": "application/octet-stream"},
        )
        checked(answer, httpx.codes.CREATED)

    def add_manifest(self, reference: str, content: bytes, media_type: str) -> bool:
        """Send a manifest; return whether the registry itself keeps track of what its subject is."""
        answer = self._client.put(
            f"{self.target.url}/manifests/{reference}", content=content, headers={"Content-Type": media_type}
        )
        return "OCI-Subject" in checked(answer, httpx.codes.CREATED).headers

    def add_tagged(self, tag: str, content: bytes, media_type: str) -> None:
        """Send a manifest under a tag, unless it has the tag already: what has none, cleanups may delete.

        Raises:
            InputError: the tag names another manifest; it is never moved.
        """
        named = self.manifest(tag)
        if named is None:
            self.add_manifest(tag, content, media_type)
        elif named.digest != sha256_digest(content):
            raise refuse(
                f"{self.target.registry}/{self.target.name}:{tag}",
                f"names {named.digest}",
                allowed=f"a tag for {sha256_digest(content)} alone, whose content it is derived from",
                fix="find out who gave it away; delete that tag, or push to another repository",
            )

    def referrers(self, digest: str) -> list[dict[str, Any]]:
        """Return descriptors of what refers to a manifest: by the API, or the tag that stands for it.

        GHCR has no API, and leads to a web page of GitHub's, which refuses most who ask.
        """
        path, accept = f"referrers/{digest}", {"Accept": INDEX_TYPE}
        listed = self._listed(path, "manifests", dict, accept, NO_API, at_home=True)
        if listed is not None:
            return listed
        index = self.manifest(fallback_tag(digest))
        return list(index.document.get("manifests") or []) if index else []

    def tagged(self) -> dict[str, tuple[Manifest, list[str]]]:
        """Return what the repository's tags name, by digest, with the tags; nothing where there is none.

        Raises:
            InputError: the list of tags does not end, or leads to another host.
        """
        tags = self._listed("tags/list", "tags", str, {}) or ()
        found: dict[str, tuple[Manifest, list[str]]] = {}
        for tag in sorted(set(tags)):
            if manifest := self.manifest(tag):
                found.setdefault(manifest.digest, (manifest, []))[1].append(tag)
        return found

    def delete(self, reference: str) -> Refusal | None:
        """Delete a manifest by its digest, or a tag; return how the registry refuses. It may be gone already.

        Most registries delete a manifest with its tags, and some take no tags here.
        """
        answer = self._client.delete(f"{self.target.url}/manifests/{reference}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.is_error:
            return Refusal.of(answer)
        checked(answer, httpx.codes.ACCEPTED, httpx.codes.OK, httpx.codes.NO_CONTENT)
        return None

    def _listed(
        self,
        path: str,
        name: str,
        kind: type,
        headers: dict[str, str],
        absent: Collection[int] = (httpx.codes.NOT_FOUND,),
        *,
        at_home: bool = False,
    ) -> list[Any] | None:
        """Return a list, page by page as Link headers lead from one to the next; None where there is none.

        OCI distribution specification 1.1, "Listing Tags". No page of another host is asked for, as it would
        get the credentials.

        Args:
            path: of the list.
            name: of the key that has a page's entries.
            kind: of each entry.
            headers: of each request.
            absent: statuses of the first page that say that there is no such list.
            at_home: being led to another host says so, too.
        """
        url, found, size = httpx.URL(f"{self.target.url}/{path}"), list[Any](), 0
        for page in range(MOST_PAGES):
            answer = self._at_home(url, headers) if at_home else self._client.get(url, headers=headers)
            if not page and (answer.status_code in absent or answer.next_request):
                return None
            found += list_in(json_of(answer), name, kind, answer)
            size += len(answer.content)
            if size > MOST_LISTED:
                raise self._endless(path, f"has more than {MOST_LISTED // 2**20} MiB")
            following = answer.links.get("next", {}).get("url")
            if not following:
                return found
            try:
                place = url.join(following)
            except httpx.InvalidURL:
                raise NotARegistryError(answer) from None
            if (place.host, place.port) != (url.host, url.port):
                raise self._endless(path, f"goes on at {place.host}")
            url = url.copy_with(raw_path=place.raw_path)
        raise self._endless(path, f"has more than {MOST_PAGES} pages")

    def _at_home(self, url: httpx.URL, headers: dict[str, str]) -> httpx.Response:
        """Return an answer of the registry itself: a redirect to another host is not followed."""
        answer = self._client.get(url, headers=headers, follow_redirects=False)
        for _ in range(self._client.max_redirects):
            following = answer.next_request
            if following is None or not is_own(self.target.url, following.url):
                break
            answer = self._client.send(following, follow_redirects=False)
        return answer

    def _endless(self, path: str, found: str) -> InputError:
        return refuse(
            f"{self.target.registry}/{self.target.name}: {path.partition('/')[0]}",
            f"the registry's list {found}",
            allowed=f"at most {MOST_PAGES} pages and {MOST_LISTED // 2**20} MiB of {self.target.host}",
            fix="look at the repository by the registry's own means; nothing was changed in it",
        )

    def in_words(self, error: httpx.HTTPError) -> InputError:
        """Return what a failed request means for whoever asked for it."""
        return in_words(self.target, error)


def in_words(target: Target, error: httpx.HTTPError) -> UnansweredError:
    """Return what a failed request to a repository means for whoever asked for it.

    httpx's own words have the whole address. A registry may have led to one with credentials in its query.
    """
    key = f"{target.registry}/{target.name}"
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
    text = str(error) or type(error).__name__
    if isinstance(error, NoLoginError):
        found, fix = f"the registry answers {status}, and {error.fault}", error.fault.fix
    elif status in {401, 403}:
        found, fix = (
            f"the registry answers {status}",
            "docker login, or gcloud auth configure-docker HOST",
        )
    elif isinstance(error, NoManifestError):
        found, fix = text, "push the image again, or name another one"
    elif isinstance(error, InTheClearError):
        found, fix = text, error.fix
    elif isinstance(error, NotARegistryError):
        found, fix = text, "check the name, and that no proxy asks you to log in (NO_PROXY)"
    elif isinstance(error, httpx.HTTPStatusError) and (pause := asked_pause(error.response)):
        found = f"the registry answers {status} and asks to wait {pause:.0f} s"
        fix = "try again after that; `docker login`, since who is logged in may ask more often"
    elif status:
        found, fix = f"the registry answers {status}", "check the name; try again later"
    elif "CERTIFICATE_VERIFY_FAILED" in text:
        found = f"cannot be reached ({text})"
        fix = f"put the certificate of its authority into {FOLDERS[0]}/{target.host}/ca.crt, "
        fix += "or into this machine's trust store"
    else:
        found, fix = f"cannot be reached ({text})", "check name and network; --insecure for plain HTTP"
    return UnansweredError([Problem(key, found, "a repository that this machine may use", fix)])


def in_short(target: Target, error: httpx.HTTPError) -> str:
    """Return the same in one line, for who goes on without the registry; with the fix where it refused."""
    [problem] = in_words(target, error).problems
    return problem.value if isinstance(error, httpx.TransportError) else f"{problem.value}; {problem.fix}"


def fallback_tag(digest: str) -> str:
    """Return the tag that lists referrers where the registry has no API for them (specification 1.1)."""
    return digest.replace(":", "-")


class NoLoginError(httpx.HTTPStatusError):
    """The registry refuses, and docker's credentials for it could not be had."""

    def __init__(self, answer: httpx.Response, fault: LoginError) -> None:
        self.fault = fault
        super().__init__(
            f"the registry answers {answer.status_code}, and {fault}; {fault.fix}",
            request=answer.request,
            response=answer,
        )


class RegistryAuth(httpx.Auth):
    """Credentials as docker has them (its configuration and helpers), as the registry asks for them.

    Distribution's token authentication: a 401 names a server that gives tokens for a repository, by GET for a
    user and a password. For an identity token, which `az acr login` keeps instead, it is the OAuth 2 one: a
    POST with that as the refresh token.

    A registry may lead to other hosts, such as a bucket: none of them gets credentials, nor says who does.
    """

    def __init__(
        self,
        target: Target,
        *,
        write: bool,
        delete: bool,
        patience: float,
        tls: ssl.SSLContext,
        mounts_from: str | None = None,
        anonymous: bool = False,
    ) -> None:
        self._target = target
        self._anonymous = anonymous
        self._tls = tls  # of the tokens' server, too, as docker has it
        self._patience = patience
        actions = "pull,push,delete" if delete else "pull,push" if write else "pull"
        self._scopes = [f"repository:{target.repository}:{actions}"]
        if mounts_from:
            self._scopes.append(f"repository:{mounts_from}:pull")
        self._header: str | None = None
        self._fault: LoginError | None = None
        self._lock = threading.Lock()

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Ask without credentials, then with what the registry wants."""
        if not is_own(self._target.url, request.url):
            yield request
            return
        if self._header:
            request.headers["Authorization"] = self._header
        response = yield request
        if not is_own(self._target.url, response.url):
            return
        # A body that was streamed cannot be sent again: only what comes before it asks for a token.
        again = isinstance(request.stream, httpx.ByteStream)
        if response.status_code == httpx.codes.UNAUTHORIZED and again:
            with self._lock:
                self._header = self._asked(response)
            if self._header:
                request.headers["Authorization"] = self._header
                response = yield request
        if is_own(self._target.url, response.url):
            self._tell(response)

    def _asked(self, response: httpx.Response) -> str | None:
        kind, rest = _challenge(response)
        known = self._known()
        basic = _basic(known)
        if kind == "basic":
            return basic
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        clear = ("https", "http") if self._target.insecure else ("https",)
        try:
            realm = httpx.URL(fields.get("realm", ""))
        except httpx.InvalidURL:
            raise NotARegistryError(response) from None
        if kind != "bearer" or realm.scheme not in clear:
            return None  # no credentials in the clear
        service = {"service": fields["service"]} if "service" in fields else {}
        with RegistryClient(verify=self._tls, patience=self._patience, timeout=30) as client:
            if refresh := known.get("identitytoken"):
                form = {**service, "grant_type": "refresh_token", "refresh_token": refresh}
                scope = " ".join(self._scopes)
                answer = client.post(realm, data={**form, "client_id": CLIENT, "scope": scope})
            else:
                headers = {"Authorization": basic} if basic else {}
                asked = {**service, "scope": self._scopes}
                answer = client.get(realm, params=asked, headers=headers)
        self._tell(answer)
        found = json_of(answer)
        token = found.get("token") or found.get("access_token")
        if token and not (isinstance(token, str) and token.isascii() and token.isprintable()):
            raise NotARegistryError(answer)
        return f"Bearer {token}" if token else None

    def _known(self) -> dict[str, Any]:
        if self._anonymous:
            return {}
        try:
            return login_of(self._target.host)
        except LoginError as error:  # what is public can be read without; a refusal tells it
            self._fault = error
            return {}

    def _tell(self, answer: httpx.Response) -> None:
        """Raise what is wrong with the credentials where it is why the registry refuses."""
        if self._fault and answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise NoLoginError(answer, self._fault)


def _is_manifest(document: dict[str, Any], answer: httpx.Response) -> bool:
    """Tell whether a manifest or an index is what its readers rely on (OCI image specification 1.1)."""
    config, notes = document.get("config") or {}, document.get("annotations") or {}
    parts = [*list_in(document, "layers", dict, answer), *list_in(document, "manifests", dict, answer)]
    parts += [config] if config else []
    return (
        isinstance(config, dict)
        and all(isinstance(part.get("digest"), str) and _is_size(part.get("size", 0)) for part in parts)
        and isinstance(document.get("subject") or {}, dict)
        and isinstance(notes, dict)
        and all(isinstance(text, str) for text in notes.values())
    )


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _challenge(answer: httpx.Response) -> tuple[str, str]:
    """Return kind and fields of the first challenge that can be met; Negotiate may come before it."""
    for header in answer.headers.get_list("WWW-Authenticate"):
        if found := _CHALLENGE.search(header):
            return found[1].lower(), found[2]
    return "", ""


def _basic(known: dict[str, Any]) -> str | None:
    if not known.get("username"):
        return None
    pair = f"{known['username']}:{known.get('password') or ''}"
    return "Basic " + base64.b64encode(pair.encode()).decode()
