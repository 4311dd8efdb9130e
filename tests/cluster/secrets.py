"""A server with TLS of its own, which wants a certificate of its clients, and the Secrets that hold one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.cluster.apps import PORT, Apps
from tests.cluster.cluster import Object
from tests.cluster.conftest import SYSTEM

_RBAC = "rbac.authorization.k8s.io"

SERVER = """
import json, os, socket, ssl, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
pair, roots, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
file = os.memfd_create("pair")
os.write(file, pair.encode())
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"/proc/self/fd/{file}")
context.load_verify_locations(cadata=roots)
context.verify_mode = ssl.CERT_REQUIRED
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        [[(_, name)]] = self.connection.getpeercert()["subject"]
        body = json.dumps({"client": name}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
server = Server(("::", port), Handler)
# The handshake is the handler's thread's: whoever only connects, as a probe does, keeps nobody.
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"""
"""Says which client's certificate it has seen, by a connection for each request."""


class Issuer:
    """An authority of a test's own."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the test's")])
        made = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), True)
        self.roots = made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def issue(self, name: str, *hosts: str) -> tuple[str, str]:
        """Certificate and key in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.DNSName(each) for each in hosts or (name,)])
        signed = self._builder(subject, key).add_extension(names, False).sign(self._key, hashes.SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return signed.public_bytes(Encoding.PEM).decode(), private.decode()

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
        )


def server(apps: Apps, node: str, issuer: Issuer) -> Object:
    """Pod and service `secure`, whose port is said to speak HTTP: the waypoint adds the TLS."""
    pod = apps.server("secure", node)
    container = pod["spec"]["containers"][0]
    pair = "".join(issuer.issue("secure", f"secure.{apps.namespace}.svc.cluster.local"))
    container["command"] = ["python3", "-c", SERVER, pair, issuer.roots, str(PORT)]
    container["readinessProbe"] = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
    return pod


def rule(apps: Apps) -> Object:
    """By which its clients show what is in the Secret `client`."""
    traffic = {"tls": {"mode": "MUTUAL", "credentialName": "client"}}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "secure", "namespace": apps.namespace},
        "spec": {"host": "secure", "trafficPolicy": traffic},
    }


def secret(apps: Apps, issuer: Issuer, client: str) -> Object:
    certificate, key = issuer.issue(client)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "client", "namespace": apps.namespace},
        "stringData": {"tls.crt": certificate, "tls.key": key, "ca.crt": issuer.roots},
    }


def rights(apps: Apps) -> list[Object]:
    """To read these two Secrets and no other, as the documentation has them."""
    meta: dict[str, Any] = {"name": "waypoints-secrets", "namespace": apps.namespace}
    rule = {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["client", "client-cacert"],
        "verbs": ["list", "watch"],
    }
    return [
        {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": meta, "rules": [rule]},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": meta["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": "ztunnel-control", "namespace": SYSTEM}],
        },
    ]
