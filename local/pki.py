"""Keys, certificates and kubeconfigs of one platform: its own CA, one client certificate per component."""

from __future__ import annotations

import base64
import datetime
import ipaddress
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from local.instance import Instance

VALIDITY = datetime.timedelta(days=365)
#: Certificates that end sooner are made anew when the platform starts: it runs for some weeks at most.
RENEWAL = datetime.timedelta(days=30)
#: They hold from before they were made: a laptop's clock that was ahead is put back by hours, not by minutes.
BACKDATED = datetime.timedelta(days=1)

NODE = "modelcar"

#: Client identities: file name → (common name, organisation). Names as in Kubernetes' PKI documentation.
CLIENTS = {
    "admin": ("modelcar-admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
    "kserve": ("kserve-controller-manager", None),
    "kube-router": ("kube-router", None),
    "front-proxy": ("front-proxy-client", None),
    "apiserver-kubelet": ("kube-apiserver-kubelet-client", "system:masters"),
}

#: Served certificates: file name → extra DNS names. Each also carries the platform's address and 127.0.0.1.
SERVERS = {
    "apiserver": ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"],
    "kubelet-server": [NODE],
    "webhook": ["localhost"],
}


def write_pki(instance: Instance) -> None:
    """Write the CA, every certificate and every kubeconfig, unless they are there already.

    A state of a former version lacks some, one of last year, or of a clock that was far ahead, has some that
    do not hold, and one that had another slot has its former address in them: all are made anew then, as
    nothing runs that knows the old ones. Data may stay: the registry's hold no address, and objects in etcd
    name their images by the former one until the next `pulumi up`.
    """
    folder = instance.pki
    complete = folder / "complete"
    everyone = "\n".join(sorted([*CLIENTS, *SERVERS]))
    if complete.exists() and complete.read_text() == everyone and _hold(instance):
        return
    complete.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("modelcar-local-ca", None, ca_key, None, None)
    _write(folder / "ca.crt", ca.public_bytes(serialization.Encoding.PEM))
    for name, (common_name, organisation) in CLIENTS.items():
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        _write_pair(folder, name, _certificate(common_name, organisation, key, (ca, ca_key), usage), key)
    addresses = [instance.address, "127.0.0.1", "10.96.0.1"]
    for name, names in SERVERS.items():
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        certificate = _certificate(name, None, key, (ca, ca_key), usage, names, addresses)
        _write_pair(folder, name, certificate, key)
    _write_service_account_key(folder)
    for name in CLIENTS:
        _write_kubeconfig(instance, name)
    complete.write_text(everyone)


def _hold(instance: Instance) -> bool:
    """Tell whether the certificates hold today and for a while, here; all are of one day, the CA's."""
    now = datetime.datetime.now(datetime.UTC)
    authority = x509.load_pem_x509_certificate((instance.pki / "ca.crt").read_bytes())
    server = x509.load_pem_x509_certificate((instance.pki / "apiserver.crt").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    here = ipaddress.ip_address(instance.address) in names.get_values_for_type(x509.IPAddress)
    return here and authority.not_valid_before_utc <= now <= authority.not_valid_after_utc - RENEWAL


def _certificate(
    common_name: str,
    organisation: str | None,
    key: ec.EllipticCurvePrivateKey,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    usage: x509.ObjectIdentifier | None,
    dns_names: list[str] | None = None,
    addresses: list[str] | None = None,
) -> x509.Certificate:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organisation:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    subject = x509.Name(attributes)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns_names or []]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses or []]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256())


def _write_pair(
    folder: Path,
    name: str,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> None:
    _write(folder / f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM))
    _write(folder / f"{name}.key", _private(key))


def _write_service_account_key(folder: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write(folder / "service-account.key", _private(key))
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write(folder / "service-account.pub", public)


def _private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)


def _write_kubeconfig(instance: Instance, name: str) -> None:
    def inline(file: str) -> str:
        return base64.b64encode((instance.pki / file).read_bytes()).decode()

    context = f"modelcar-{instance.name}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": context,
                "cluster": {"server": instance.api_server, "certificate-authority-data": inline("ca.crt")},
            }
        ],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": inline(f"{name}.crt"),
                    "client-key-data": inline(f"{name}.key"),
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": context, "user": name}}],
        "current-context": context,
    }
    target = instance.kubeconfig if name == "admin" else instance.pki / f"{name}.kubeconfig"
    _write(target, yaml.safe_dump(document).encode())
