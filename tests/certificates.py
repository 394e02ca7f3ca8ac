"""Certificates for servers on this machine, right and wrong ones, and names that lead to it."""

import datetime as dt
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True, slots=True)
class Tls:
    """Who signs here. bundle: the file with that authority, for who is to trust it."""

    authority: trustme.CA
    bundle: str

    def context(self, *names: str, **validity: dt.datetime) -> ssl.SSLContext:
        """A server's context with a certificate for some names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if validity:
            _load(context, *_self_made(names[0], self.authority, **validity))
        else:
            self.authority.issue_cert(*names).configure_cert(context)
        return context


def _self_made(name: str, authority: trustme.CA, **validity: dt.datetime) -> tuple[bytes, bytes]:
    """Certificate and key, signed by an authority, valid when asked for."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity["since"])
        .not_valid_after(validity["until"])
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(signer, hashes.SHA256())  # type: ignore[arg-type]
    )
    private = serialization.PrivateFormat.TraditionalOpenSSL
    pem = key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
    return made.public_bytes(serialization.Encoding.PEM), pem


def _load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    blob = trustme.Blob(key + certificate)
    with blob.tempfile() as file:
        context.load_cert_chain(file)


def make_authority(folder: Path) -> Tls:
    """Somebody who signs, with the file that says so in a folder."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    bundle = folder / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    return Tls(authority, str(bundle))


def resolve_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every name that ends in `.test` lead to 127.0.0.1. https://www.rfc-editor.org/rfc/rfc6761#section-6.2"""
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *more, **named: resolve("127.0.0.1" if str(host).endswith(".test") else host, *more, **named),
    )
