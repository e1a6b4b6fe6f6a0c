"""A registry with a private authority, as docker knows it: HTTPS on loopback."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import json
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from modelcar import docker_certificates, extra
from modelcar.base import _download
from modelcar.errors import InputError
from modelcar.registry import Registry, Target
from tests.registry_server import PASSWORD, USER, serve

PEM = serialization.Encoding.PEM


class Authority:
    """A private authority, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"private {folder.name}")])
        self.certificate = folder / "ca.pem"
        self.certificate.write_bytes(self._sign(self._name, self._key, ca=True).public_bytes(PEM))

    def make(self, name: str) -> tuple[Path, Path]:
        """Write a certificate for 127.0.0.1 and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        paths = self._folder / f"{name}.pem", self._folder / f"{name}-key.pem"
        paths[0].write_bytes(self._sign(subject, key, ca=False).public_bytes(PEM))
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        paths[1].write_bytes(key.private_bytes(PEM, form, plain))
        return paths

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(self._key, hashes.SHA256())
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def certs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's folder of certificates; its configuration has a login for nobody."""
    monkeypatch.setattr(docker_certificates, "FOLDERS", (str(tmp_path / "certs.d"),))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path / "certs.d"


@pytest.fixture
def server(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.make("server"))
    return context


@pytest.fixture
def system(authority: Authority) -> Iterator[None]:
    """An authority in the system's trust store alone.

    OpenSSL is told where that is by the process's environment; httpx asks Python's copy of it, and there it
    would stand for SSL_CERT_FILE, in place of everything else.
    """
    os.putenv("SSL_CERT_FILE", str(authority.certificate))
    yield
    os.unsetenv("SSL_CERT_FILE")


def ask(host: str) -> list[str]:
    with Registry(Target(host, "tiny")) as registry:
        return list(registry.tagged())


def trust(certs: Path, host: str, authority: Authority) -> Path:
    (certs / host).mkdir(parents=True)
    (certs / host / "ca.crt").write_bytes(authority.certificate.read_bytes())
    return certs / host


def test_a_private_authority_is_docker_s(certs: Path, authority: Authority, server: ssl.SSLContext) -> None:
    with serve(tls=server) as registry:
        with pytest.raises(InputError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            ask(registry.host)
        assert f"certs.d/{registry.host}/ca.crt" in caught.value.problems[0].fix
        trust(certs, registry.host, authority)
        assert ask(registry.host) == []


def test_the_authority_holds_for_that_registry_alone(
    certs: Path, authority: Authority, server: ssl.SSLContext
) -> None:
    trust(certs, "127.0.0.1:1", authority)
    with serve(tls=server) as registry, pytest.raises(InputError, match="CERTIFICATE_VERIFY_FAILED"):
        ask(registry.host)


def test_the_server_of_tokens_may_have_that_authority(
    certs: Path, authority: Authority, server: ssl.SSLContext
) -> None:
    with serve("Bearer", tls=server) as registry:
        trust(certs, registry.host, authority)
        encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (certs.parent / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": encoded}}}))
        assert ask(registry.host) == []
        assert registry.scopes == ["repository:tiny:pull"]


def test_a_client_certificate_is_shown(certs: Path, authority: Authority, server: ssl.SSLContext) -> None:
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(authority.certificate)
    with serve(tls=server) as registry:
        folder = trust(certs, registry.host, authority)
        with pytest.raises((InputError, httpx.HTTPError)):
            ask(registry.host)
        certificate, key = authority.make("client")
        certificate.rename(folder / "client.cert")
        with pytest.raises(InputError, match=r"client\.cert: cannot be used"):
            ask(registry.host)
        key.rename(folder / "client.key")
        assert ask(registry.host) == []


def test_a_certificate_that_is_none_is_told_with_its_path(certs: Path) -> None:
    (certs / "registry.example").mkdir(parents=True)
    (certs / "registry.example" / "ca.crt").write_text("-----BEGIN NONSENSE-----")
    with pytest.raises(InputError, match=r"certs\.d/registry\.example/ca\.crt: cannot be used"):
        ask("registry.example")


@pytest.mark.usefixtures("certs", "system")
def test_an_authority_of_the_system_s_trust_store_counts(server: ssl.SSLContext) -> None:
    with serve(tls=server) as registry:
        assert ask(registry.host) == []


@pytest.mark.usefixtures("system")
def test_an_authority_of_the_system_s_counts_beside_docker_s(
    certs: Path, server: ssl.SSLContext, tmp_path: Path
) -> None:
    with serve(tls=server) as registry:
        trust(certs, registry.host, Authority(tmp_path / "another"))
        assert ask(registry.host) == []


@pytest.mark.usefixtures("certs", "system")
def test_where_plain_http_redirects_to_counts_too(server: ssl.SSLContext) -> None:
    with serve(tls=server) as behind, serve() as registry:
        place = f"https://{behind.host}/v2/tiny/tags/list"
        registry.instead = lambda method, path: (307, {"Location": place}, b"")
        with Registry(Target(registry.host, "tiny", insecure=True)) as found:
            assert found.tagged() == {}


@pytest.mark.usefixtures("system")
def test_downloads_from_a_company_s_hosts_trust_it_too(server: ssl.SSLContext, tmp_path: Path) -> None:
    with serve(tls=server) as host:
        host.instead = lambda method, path: (200, {}, b"file")
        url = f"https://{host.host}/file"
        assert _download([url]) == b"file"
        digest = hashlib.sha256(b"file").hexdigest()
        assert extra._read(extra.Extra("tokenizer/file", url, digest), tmp_path / "part") == digest
