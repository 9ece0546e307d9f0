"""The control plane's certificates, tokens and kubeconfigs."""

import base64
import datetime as dt
import ipaddress
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.addresses import APISERVER_URL, AWS_URL, KUBERNETES_SERVICE_ADDRESS, LAB_ADDRESS
from lab.controlplane.identities import ADMIN, AUTHORIZER_CONFIG, GROUPS, REVIEWER_CONFIG, user_name
from lab.paths import LabPaths

_SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
                 "kubernetes.default.svc.cluster.local")  # fmt: skip
_SERVER_ADDRESSES = ("127.0.0.1", KUBERNETES_SERVICE_ADDRESS, LAB_ADDRESS)


@dataclass(frozen=True)
class _Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def write_pki(paths: LabPaths) -> None:
    """Writes the certificate authority, all certificates, keys, tokens and kubeconfigs of a new lab."""
    paths.pki.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = _new_authority()
    _write_public(paths.pki / "ca.crt", _pem(authority.certificate))
    _write_private(paths.pki / "ca.key", _private_pem(authority.key))

    _issue(paths.pki / "apiserver", authority, "kube-apiserver", names=_SERVER_NAMES, addresses=_SERVER_ADDRESSES)
    _issue(paths.pki / "kubelet", authority, "kubelet", names=("localhost",), addresses=("127.0.0.1",))
    _issue(paths.pki / "apiserver-kubelet-client", authority, "kube-apiserver", organization="system:masters")

    service_accounts = ec.generate_private_key(ec.SECP256R1())
    _write_private(paths.pki / "service-accounts.key", _private_pem(service_accounts))
    _write_public(paths.pki / "service-accounts.pub", service_accounts.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))  # fmt: skip

    tokens = {identity: secrets.token_hex(16) for identity in GROUPS}
    lines = [f'{token},{user_name(identity)},{identity},"{GROUPS[identity]}"\n' for identity, token in tokens.items()]
    _write_private(paths.pki / "tokens.csv", "".join(lines).encode())
    for identity, token in tokens.items():
        target = paths.kubeconfig if identity == ADMIN else paths.kubeconfig_of(identity)
        _write_private(target, _kubeconfig(APISERVER_URL, token=token, authority=authority.certificate))
    _write_private(paths.pki / REVIEWER_CONFIG, _kubeconfig(f"{AWS_URL}/_lab/authenticate"))
    _write_private(paths.pki / AUTHORIZER_CONFIG, _kubeconfig(f"{AWS_URL}/_lab/authorize"))


def kubelet_certificate(paths: LabPaths, node: str) -> Path:
    """A file with the client certificate and key of a node's kubelet, in PEM; issued at the first call.

    Its subject is what the Node authorizer goes by (Kubernetes docs, Node authorization): system:node:NAME of the group
    system:nodes. On EKS a token of the instance's role stands for the same user and group.
    """
    target = paths.pki / "kubelets" / f"{node}.pem"
    if target.exists():
        return target
    target.parent.mkdir(exist_ok=True, mode=0o700)
    certificate, key = _certificate(_authority(paths), f"system:node:{node}", organization="system:nodes")
    own = target.with_suffix(f".{os.getpid()}")
    _write_private(own, _pem(certificate) + _private_pem(key))
    # The node agent and the heartbeats both ask: whoever is second replaces a whole file by a whole one.
    own.replace(target)
    return target


def _authority(paths: LabPaths) -> _Authority:
    key = serialization.load_pem_private_key((paths.pki / "ca.key").read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{paths.pki / 'ca.key'} is not what write_pki writes")
    return _Authority(key, x509.load_pem_x509_certificate((paths.pki / "ca.crt").read_bytes()))


def _kubeconfig(server: str, token: str | None = None, authority: x509.Certificate | None = None) -> bytes:
    cluster = {"server": server}
    if authority is not None:
        cluster["certificate-authority-data"] = base64.b64encode(_pem(authority)).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": "lab", "user": {"token": token} if token else {}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        "current-context": "lab",
    }
    return yaml.safe_dump(document, sort_keys=False).encode()


def _new_authority() -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("eks-rolling lab")
    certificate = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _Authority(key, certificate)


def _issue(
    target: Path,
    authority: _Authority,
    common_name: str,
    *,
    organization: str | None = None,
    names: Sequence[str] = (),
    addresses: Sequence[str] = (),
) -> None:
    """Writes TARGET.crt and TARGET.key."""
    certificate, key = _certificate(authority, common_name, organization=organization, names=names, addresses=addresses)
    _write_public(target.with_suffix(".crt"), _pem(certificate))
    _write_private(target.with_suffix(".key"), _private_pem(key))


def _certificate(
    authority: _Authority,
    common_name: str,
    *,
    organization: str | None = None,
    names: Sequence[str] = (),
    addresses: Sequence[str] = (),
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A serving certificate where it has names or addresses, else a client's; and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    serving = bool(names or addresses)
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if serving else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(_name(common_name, organization), authority.certificate.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if serving:
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(authority.key, hashes.SHA256()), key


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=365))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str, organization: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_public(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
