"""Servers of TLS without I/O, and an authority for them."""

from __future__ import annotations

import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_NOW = datetime.now(UTC)


class Authority:
    """Signs certificates, and writes what it makes into a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._cert = self._sign(self._name, self._key.public_key(), [], is_ca=True)
        self.roots = str(folder / f"{name}.pem")
        Path(self.roots).write_bytes(self._cert.public_bytes(serialization.Encoding.PEM))

    def _sign(self, name, key, names, is_ca=False, serial=None):
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(_NOW - timedelta(days=1))
            .not_valid_after(_NOW + timedelta(days=1))
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        )
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return made.sign(self._key, hashes.SHA256())

    def issue(self, name: str, *names: str, serial: int | None = None) -> tuple[str, str]:
        """Paths of a certificate with these names, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        cert = self._sign(subject, key.public_key(), [_general(each) for each in names], serial=serial)
        paths = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        paths[0].write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return str(paths[0]), str(paths[1])

    def revoke(self, *serials: int) -> str:
        """The path of a list of revoked certificates."""
        made = x509.CertificateRevocationListBuilder(
            self._name, _NOW - timedelta(days=1), _NOW + timedelta(days=1)
        )
        for serial in serials:
            one = x509.RevokedCertificateBuilder(serial, _NOW - timedelta(hours=1)).build()
            made = made.add_revoked_certificate(one)
        path = self.folder / "crl.pem"
        path.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return str(path)


def _general(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class TlsServer:
    """One connection, as a server has it: `take` what came, and send what that gives."""

    def __init__(self, paths: tuple[str, str], clients: str = "", alpn: str = "") -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*paths)
        if clients:
            context.load_verify_locations(clients)
            context.verify_mode = ssl.CERT_REQUIRED
        if alpn:
            context.set_alpn_protocols([alpn])
        self.asked_for: str | None = None
        context.sni_callback = self._named
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.stands = False
        self.failure = ""
        self.got = b""
        self.ended = False

    def _named(self, tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        self.asked_for = name

    def take(self, cipher: bytes) -> bytes:
        """What it sends then."""
        self._incoming.write(cipher)
        try:
            if not self.stands:
                self.tls.do_handshake()
                self.stands = True
            while True:
                plain = self.tls.read(65536)
                if not plain:
                    self.ended = True
                    break
                self.got += plain
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            self.failure = error.reason or str(error)
        return self._outgoing.read()

    def say(self, plain: bytes) -> bytes:
        """The cipher of that."""
        self.tls.write(plain)
        return self._outgoing.read()

    def end(self) -> bytes:
        """It says goodbye."""
        with suppress(ssl.SSLError):
            self.tls.unwrap()
        return self._outgoing.read()
