"""Layers go to the registry ahead of the build: those that it lacks, once, with the user's credentials."""

from __future__ import annotations

import _thread
import base64
import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from modelcar import fetching, locking, registry_http
from modelcar.__main__ import main
from modelcar.base import read_base
from modelcar.errors import InputError
from modelcar.image import modelcar_image
from modelcar.lock import lock_path
from modelcar.lock_reader import read_lock
from modelcar.manifest import Image
from modelcar.push import layers_there, push_layers
from modelcar.registry import Registry, Target, in_words
from modelcar.registry_http import NotARegistryError, upload_place
from modelcar.tiny_model import make_tiny_model
from tests.registry_server import PASSWORD, USER, Answer, serve
from tests.registry_server import Registry as Server


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_tiny_model(folder / "weights")
    description = locking.Description(folder="weights")
    resolved = locking.resolve(description, folder)
    locking.lock_model("tiny", description, resolved, folder, large_file=1000)
    return folder


@pytest.fixture
def image(project: Path) -> Image:
    return modelcar_image(read_lock(lock_path(project, "tiny")), read_base("amd64"))


@pytest.fixture(autouse=True)
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker configuration without credentials."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker" / "config.json"


def log_in(credentials: Path, registry: Server) -> None:
    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    credentials.write_text(json.dumps({"auths": {registry.host: {"auth": encoded}}}))


def push(project: Path, image: Image, registry: Server, counted: list[int] | None = None) -> int:
    target = Target(f"{registry.host}/models", "tiny", insecure=True)
    return push_layers(image, locking.layout_path(project, "tiny"), target, (counted or []).append)


def test_every_layer_is_sent_once(project: Path, image: Image) -> None:
    total = sum(layer.size for layer in image.layers)
    with serve() as registry:
        counted: list[int] = [0]
        assert push(project, image, registry, counted) == total
        assert sum(counted) == total
        assert sorted(registry.sent) == sorted(layer.digest for layer in image.layers)
        assert push(project, image, registry) == 0
        assert len(registry.sent) == len(image.layers)


def test_only_what_the_registry_lacks_is_sent(project: Path, image: Image) -> None:
    with serve() as registry:
        there = image.layers[1]
        registry.there[there.digest] = there.size
        target = Target(f"{registry.host}/models", "tiny", insecure=True)
        assert layers_there(image, target) == {there.digest}
        assert push(project, image, registry) == sum(layer.size for layer in image.layers) - there.size
        assert there.digest not in registry.sent
        assert layers_there(image, target) == {layer.digest for layer in image.layers}


@pytest.mark.parametrize("wants", ["Basic", "Bearer"])
def test_docker_s_credentials_are_used(project: Path, image: Image, credentials: Path, wants: str) -> None:
    with serve(wants) as registry:
        log_in(credentials, registry)
        assert push(project, image, registry) > 0
        assert len(registry.sent) == len(image.layers)
        assert set(registry.scopes) <= {"repository:models/tiny:pull,push"}


@pytest.mark.parametrize("others", [["Negotiate"], ['Digest realm="a,b", qop="auth", Negotiate']])
@pytest.mark.parametrize("wants", ["Basic", "Bearer"])
def test_a_challenge_that_docker_cannot_meet_may_come_first(
    project: Path, image: Image, credentials: Path, wants: str, others: list[str]
) -> None:
    with serve(wants) as registry:
        log_in(credentials, registry)
        registry.other_challenges = others
        assert push(project, image, registry) > 0


@pytest.mark.parametrize("wants", ["Basic", "Bearer"])
def test_without_credentials_the_registry_s_answer_is_told(project: Path, image: Image, wants: str) -> None:
    with serve(wants) as registry, pytest.raises(httpx.HTTPStatusError, match="401") as caught:
        push(project, image, registry)
    assert PASSWORD not in str(caught.value)


def test_a_broken_docker_configuration_is_told(project: Path, image: Image, credentials: Path) -> None:
    with serve("Basic") as registry:
        credentials.write_text(json.dumps({"auths": {registry.host: "robot"}}))
        with pytest.raises(httpx.HTTPStatusError, match=r"401.*configuration .*config\.json cannot be read"):
            push(project, image, registry)


@pytest.mark.parametrize("wants", ["Basic", "Bearer"])
def test_another_host_that_takes_the_layers_gets_no_credentials(
    project: Path, image: Image, credentials: Path, wants: str
) -> None:
    """A registry may lead an upload to a bucket by an address that is signed."""
    with serve(wants) as registry, serve() as bucket:
        log_in(credentials, registry)

        def instead(method: str, path: str) -> Answer | None:
            signed = f"http://{bucket.host}/v2/models/tiny/blobs/uploads/one?signature=x"
            return (202, {"Location": signed}, b"") if (method, path[-9:]) == ("POST", "/uploads/") else None

        registry.instead = instead
        assert push(project, image, registry) > 0
        assert registry.credentials
        assert sorted(bucket.sent) == sorted(layer.digest for layer in image.layers)
        assert bucket.credentials == []


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("http://registry.example/v2/tiny/blobs/uploads/one", "wants what is uploaded by plain HTTP"),
        ("https://exa mple:port/x", "this is not a registry"),
        (None, "this is not a registry"),
    ],
)
def test_an_upload_that_is_led_to_plain_http_or_nowhere_is_told(location: str | None, says: str) -> None:
    headers = {"Location": location} if location else {}
    transport = httpx.MockTransport(lambda _: httpx.Response(202, headers=headers))
    with httpx.Client(transport=transport) as client, pytest.raises(httpx.HTTPStatusError) as caught:
        upload_place(client, "https://registry.example/v2/tiny", image_digest := "sha256:" + "0" * 64)
    told = str(in_words(Target("registry.example", "tiny"), caught.value))
    assert says in told
    assert image_digest not in told
    assert "fix: " in told


def test_a_server_in_trouble_is_asked_again(project: Path, image: Image) -> None:
    with serve() as registry:
        registry.failures += [503, 502]
        counted: list[int] = [0]
        assert push(project, image, registry, counted) == sum(counted)


@pytest.mark.parametrize("status", [403, 413])
def test_a_refusal_is_not_repeated(project: Path, image: Image, status: int) -> None:
    with serve() as registry:
        registry.failures += [status] * 20
        with pytest.raises(httpx.HTTPStatusError, match=str(status)):
            push(project, image, registry)
        assert len(registry.failures) >= 20 - len(image.layers)


def test_a_layer_that_is_not_what_it_should_be_is_told_and_not_taken(
    project: Path, image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    path = locking.layout_path(project, "tiny") / "blobs" / image.layers[-1].digest.replace(":", "/")
    whole = path.read_bytes()
    path.write_bytes(b"x" + whole[1:])
    try:
        with serve() as registry:
            name = f"{registry.host}/models/tiny"
            assert main(["--project", str(project), "push", "tiny", name, "--insecure"]) == 2
            assert image.layers[-1].digest not in registry.sent
    finally:
        path.write_bytes(whole)
    told = capsys.readouterr().err
    assert f"{path}: its content is sha256:" in told
    assert "fix: the disk, or somebody, changed it: delete this file, then fetch the model" in told


def test_the_command_sends_layers_and_tells_the_digest(
    project: Path, image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve() as registry:
        arguments = ["--project", str(project), "push", "tiny", f"{registry.host}/models/tiny", "--insecure"]
        assert main(arguments) == 0
        assert image.digest in capsys.readouterr().out
        assert len(registry.sent) == len(image.layers)
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert f"error: {registry.host}/models/tiny: cannot be reached" in told
    assert "fix: check name and network" in told


def test_ctrl_c_ends_it_while_layers_are_sent(project: Path, image: Image) -> None:
    with serve() as registry:
        first, over = threading.Lock(), threading.Event()

        def stalls(method: str, _: str) -> Answer | None:
            if method == "PUT":
                if first.acquire(blocking=False):  # of several at once: a second one would end pytest
                    _thread.interrupt_main()
                over.wait(60)
            return None

        registry.instead = stalls
        with pytest.raises(KeyboardInterrupt):
            push(project, image, registry)
        assert registry.sent == []
        over.set()


def test_ctrl_c_ends_verify_in_mid_layer(
    project: Path, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, layout = read_lock(lock_path(project, "tiny")), locking.layout_path(project, "tiny")
    read, over = [0], threading.Event()

    def counted(count: int) -> None:
        read[0] += count
        if read[0] == count:
            _thread.interrupt_main()
        over.wait(60)

    monkeypatch.setattr("modelcar.sources.BUFFER", 1000)
    with pytest.raises(KeyboardInterrupt):
        fetching.verify(lock, layout, progress=counted)
    over.set()
    assert read[0] <= 2 * 1000, "of each of two layers"


SIGNED = "X-Amz-Credential=AKIA-s3cret&X-Amz-Signature=s3cret"


def leading(status: int) -> Callable[[str, str], Answer | None]:
    """Return a registry that leads to a bucket, with credentials in the address, which answers so."""

    def instead(_: str, path: str) -> Answer | None:
        if path.startswith("/bucket/"):
            return status, {}, b""
        return (307, {"Location": f"/bucket/x?{SIGNED}"}, b"") if "/blobs/" in path else None

    return instead


@pytest.mark.parametrize("more", [[], ["--builder", "b"]])
@pytest.mark.parametrize(
    ("status", "fix"),
    [(401, "docker login"), (403, "docker login"), (500, "check the name; try again later")],
)
def test_the_command_tells_a_refusal_with_the_fix_and_no_address_with_credentials(
    project: Path, capsys: pytest.CaptureFixture[str], status: int, fix: str, more: list[str]
) -> None:
    with serve() as registry:
        registry.instead = leading(status)
        name = f"{registry.host}/models/tiny"
        assert main(["--project", str(project), "push", "tiny", name, "--insecure", *more]) == 1
    told = capsys.readouterr().err
    assert f"error: {name}: the registry answers {status}" in told
    assert f"fix: {fix}" in told
    assert "s3cret" not in told


@pytest.mark.parametrize("scheme", ["oci://", "docker://"])
def test_the_name_of_a_repository_may_be_a_storage_uris(
    project: Path, image: Image, capsys: pytest.CaptureFixture[str], scheme: str
) -> None:
    with serve() as registry:
        name = f"{registry.host}/models/tiny"
        at = ["--project", str(project)]
        assert main([*at, "push", "tiny", f"{scheme}{name}", "--insecure", "--image"]) == 0
        assert capsys.readouterr().out == f"{name}@{image.digest}\n"
        assert main([*at, "options", "tiny", f"{scheme}{name}", "--insecure"]) == 0
        assert f",name={name}:" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["push", "options"])
@pytest.mark.parametrize(
    ("name", "found", "fix"),
    [
        ("https://registry.example/models/tiny", "has a scheme", "write registry.example/models/tiny"),
        ("https://me:s3cret@registry.example/tiny", "has a scheme and credentials", "docker login"),
        ("tiny", "not the name of a repository", "name the repository alone"),
        ("registry.example/models/tiny:v1", "has a tag", "write registry.example/models/tiny"),
        (f"registry.example/tiny@sha256:{'0' * 64}", "has a digest", "write registry.example/tiny"),
        ("registry.example/Models/tiny", "not the name of a repository", "name the repository alone"),
        ("registry.example:99999/tiny", "has a port that does not exist", "use a port from 1 to 65535"),
        ("", "not the name of a repository", "name the repository alone"),
    ],
)
def test_what_names_no_repository_is_refused_before_anything_is_asked(
    project: Path, capsys: pytest.CaptureFixture[str], command: str, name: str, found: str, fix: str
) -> None:
    assert main(["--project", str(project), command, "tiny", name]) == 2
    told = capsys.readouterr().err
    assert f"REPOSITORY: {found}\n" in told
    assert fix in told
    assert "s3cret" not in told


PAGE = (200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>Log in</html>")


@pytest.mark.parametrize("methods", [{"HEAD", "POST", "PUT"}, {"POST"}, {"PUT"}])
def test_a_login_page_is_no_registry(project: Path, image: Image, methods: set[str]) -> None:
    with serve() as registry:
        registry.instead = lambda method, _path: PAGE if method in methods else None
        with pytest.raises(NotARegistryError, match="200 with text/html: this is not a registry"):
            push(project, image, registry)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "5"},
        {"Content-Length": "{size}", "Docker-Content-Digest": "sha256:" + "0" * 64},
        {"Content-Type": "application/octet-stream"},
    ],
)
def test_an_answer_about_another_blob_is_no_layer(
    project: Path, image: Image, headers: dict[str, str]
) -> None:
    """Content-Length and Docker-Content-Digest have to be the layer's, and one of them has to be there."""
    sizes = {layer.digest: layer.size for layer in image.layers}

    def instead(method: str, path: str) -> Answer | None:
        size = sizes.get(path.rpartition("/")[2])
        found = {name: value.format(size=size) for name, value in headers.items()}
        return (200, found, b"") if method == "HEAD" else None

    with serve() as registry:
        registry.instead = instead
        assert layers_there(image, Target(registry.host, "tiny", insecure=True)) == frozenset()
        assert push(project, image, registry) == sum(sizes.values())


@pytest.mark.parametrize("header", ["Content-Length", "Docker-Content-Digest"])
def test_one_header_tells_that_a_layer_is_there(project: Path, image: Image, header: str) -> None:
    sizes = {layer.digest: layer.size for layer in image.layers}

    def instead(method: str, path: str) -> Answer | None:
        digest = path.rpartition("/")[2]
        told = {"Content-Length": str(sizes.get(digest)), "Docker-Content-Digest": digest}
        return (200, {header: told[header]}, b"") if method == "HEAD" else None

    with serve() as registry:
        registry.instead = instead
        assert push(project, image, registry) == 0


def test_a_page_instead_of_a_registry_s_json_is_told_with_the_fix() -> None:
    with serve() as registry:
        registry.instead = lambda _method, _path: PAGE
        for look in (Registry.tagged, lambda r: r.referrers("sha256:0"), lambda r: r.manifest("latest")):
            with (
                pytest.raises(InputError, match="this is not a registry") as caught,
                Registry(Target(registry.host, "tiny", insecure=True)) as client,
            ):
                look(client)
            assert "proxy" in caught.value.problems[0].fix


@pytest.mark.parametrize("kept_by", ["file", "helper"])
def test_an_identity_token_is_a_refresh_token(
    project: Path, image: Image, credentials: Path, monkeypatch: pytest.MonkeyPatch, kept_by: str
) -> None:
    """As `az acr login` leaves it, beside a user without a password."""
    with serve("Bearer") as registry:
        registry.identity_token = "refresh=me&really"
        if kept_by == "file":
            user = base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode()
            entry = {"auth": user, "identitytoken": registry.identity_token}
            credentials.write_text(json.dumps({"auths": {registry.host: entry}}))
        else:
            answer = json.dumps({"Username": "<token>", "Secret": registry.identity_token})
            helper(credentials, monkeypatch, registry, f"cat > /dev/null; echo '{answer}'")
        assert push(project, image, registry) > 0
        assert set(registry.scopes) == {"repository:models/tiny:pull,push"}


def helper(credentials: Path, monkeypatch: pytest.MonkeyPatch, registry: Server, script: str) -> None:
    """Let a credential helper of this script be the registry's."""
    program = credentials.parent / "docker-credential-own"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    credentials.write_text(json.dumps({"credHelpers": {registry.host: "own"}}))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited for a busy registry, which pass at once here."""
    found: list[float] = []
    monkeypatch.setattr("modelcar.registry_http.time.sleep", found.append)
    return found


def busy(registry: Server, method: str, *answers: dict[str, str], path: str = "") -> None:
    """Let the first requests of a method be answered with 429 and these headers."""
    left = list(answers)

    def instead(asked: str, url: str) -> Answer | None:
        with registry.lock:
            return (429, left.pop(0), b"") if asked == method and path in url and left else None

    registry.instead = instead


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
def test_a_busy_registry_is_asked_again_when_it_says(
    project: Path, image: Image, method: str, pauses: list[float]
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    with serve() as registry:
        busy(registry, method, {"Retry-After": "7"}, {"Retry-After": date}, {})
        counted: list[int] = [0]
        assert push(project, image, registry, counted) == sum(counted)
        assert sorted(registry.sent) == sorted(layer.digest for layer in image.layers)
    assert sorted(round(pause, -1) if pause > 10 else pause for pause in pauses) == [1, 7, 60]


def test_a_busy_server_of_tokens_is_asked_again(
    project: Path, image: Image, credentials: Path, pauses: list[float]
) -> None:
    with serve("Bearer") as registry:
        log_in(credentials, registry)
        busy(registry, "GET", {"Retry-After": "2"}, path="/token")
        assert push(project, image, registry) > 0
    assert pauses == [2]


def test_nobody_waits_for_an_hour_or_for_ever(project: Path, image: Image, pauses: list[float]) -> None:
    with serve() as registry:
        for header in ({"Retry-After": "3600"}, {"Retry-After": "0"}, {"Retry-After": "soon"}):
            busy(registry, "PUT", *[header] * 5000)
            with pytest.raises(httpx.HTTPStatusError, match="429"):
                push(project, image, registry)
        busy(registry, "GET", {"Retry-After": "3600"})
        with (
            pytest.raises(InputError, match="asks to wait 3600 s"),
            Registry(Target(registry.host, "tiny", insecure=True)) as client,
        ):
            client.manifest("latest")
        waited = sum(pauses)
        busy(registry, "HEAD", *[{"Retry-After": "4"}] * 50)
        with pytest.raises(httpx.HTTPStatusError, match="429"):
            layers_there(image, Target(registry.host, "tiny", insecure=True), timeout=3.0)
        assert sum(pauses) == waited, "who is in a hurry does not wait"
    assert waited <= len(image.layers) * registry_http.PATIENCE


@pytest.mark.parametrize("wants", ["Basic", "Bearer"])
@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            "echo 'ERROR: log in to the cloud again' >&2; exit 1",
            "docker-credential-own says: ERROR: log in to the",
        ),
        ("echo 'the keychain is locked'; exit 1", "docker-credential-own says: the keychain is locked"),
        ("exit 3", "docker-credential-own says: exit status 3"),
        (f"echo {PASSWORD}", "docker-credential-own gives no credentials"),
        (None, "docker-credential-own, docker's credential helper, is not on PATH"),
    ],
)
def test_a_credential_helper_that_fails_is_told_with_the_fix(
    project: Path,
    image: Image,
    credentials: Path,
    monkeypatch: pytest.MonkeyPatch,
    wants: str,
    script: str | None,
    says: str,
) -> None:
    with serve(wants) as registry:
        helper(credentials, monkeypatch, registry, script or "")
        if script is None:
            (credentials.parent / "docker-credential-own").unlink()
        with pytest.raises(httpx.HTTPStatusError) as caught:
            push(project, image, registry)
        assert "401" in str(caught.value)
        assert says in str(caught.value)
        assert f"echo {registry.host} | docker-credential-own get" in str(caught.value)
        assert PASSWORD not in str(caught.value)
        with (
            pytest.raises(InputError, match=says),
            Registry(Target(registry.host, "tiny", insecure=True)) as client,
        ):
            client.manifest("latest")


def test_what_is_public_needs_no_helper(
    project: Path, image: Image, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as registry:
        helper(credentials, monkeypatch, registry, "exit 1")
        assert push(project, image, registry) > 0


def test_a_helper_that_knows_nothing_leaves_it_to_the_file(
    project: Path, image: Image, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve("Basic") as registry:
        helper(credentials, monkeypatch, registry, "echo credentials not found in native keychain; exit 1")
        encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        config = json.loads(credentials.read_text())
        credentials.write_text(json.dumps({**config, "auths": {registry.host: {"auth": encoded}}}))
        assert push(project, image, registry) > 0
