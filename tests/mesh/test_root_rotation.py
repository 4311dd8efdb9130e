"""The mesh goes from one root to another under load: A, then A and B while A signs, while B signs, then B."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.mesh import lab
from tests.mesh.lab import Load, Mesh, account, read_exactly
from tests.mesh.peers import Paper, authority, issue
from ztunnel.cli.main import main
from ztunnel.identity.chain import parse_certificates
from ztunnel.identity.plugged_in import CA_CERT, CA_KEY, ROOT_CERT
from ztunnel.identity.sign import KEY_FILE, write_whole

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

TTL_SECONDS = 4.0
ENVIRONMENT = {"SECRET_TTL": f"{TTL_SECONDS:.0f}s"}
MANIFESTS = (
    lab.SHOP
    + lab.pod("shop/near", "node-1", annotations="ztunnel.io/same-node: mtls")
    + lab.pod("shop/called", "node-2")
    + lab.pod("out/peer", "node-1")
)
NODES = ("node-1", "node-2")
WAIT_SECONDS = 6 * TTL_SECONDS


@pytest.fixture
def place(mesh: Mesh) -> Path:
    """The folder of the authority of both nodes."""
    return mesh.laboratory.names.directory / "state" / "ca"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A root B and its intermediate `lab`, as an operator makes them."""
    folder = tmp_path / "certs"
    for arguments in (["root"], ["cluster", "lab"]):
        result = CliRunner().invoke(main, ["ca", *arguments, "--folder", str(folder)])
        assert result.exit_code == 0, result.output
    return folder


def put(place: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        write_whole(place / name, text.encode(), 0o600 if "key" in name else 0o644)


def in_use(mesh: Mesh) -> set[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Intermediates and roots, by their serial numbers, of every certificate that a node holds."""
    found = set()
    for node in NODES:
        for each in json.loads(mesh.laboratory.node_get(node, "/config_dump"))["certificates"]:
            chain, roots = (
                [one["serialNumber"] for one in each[part]] for part in ("certChain", "rootCerts")
            )
            found.add((tuple(chain[1:]), tuple(roots)))
    return found


def serials(*pems: str) -> tuple[str, ...]:
    return tuple(str(one.serial_number) for pem in pems for one in parse_certificates(pem))


def wait_for(mesh: Mesh, intermediates: tuple[str, ...], roots: tuple[str, ...]) -> None:
    """Until every certificate in use is of that kind: then the next step is due."""
    wanted = {(intermediates, roots)}
    lab.wait_until(lambda: in_use(mesh) == wanted, f"all certificates are {wanted}", seconds=WAIT_SECONDS)


def test_no_call_fails_while_the_mesh_goes_from_one_root_to_another(
    mesh: Mesh, place: Path, made: Path
) -> None:
    ours = authority(mesh)
    old, new = ours.roots_pem, (made / ROOT_CERT).read_text()
    plugged = {path.name: path.read_text() for path in (made / "lab").iterdir()}
    signer = serials(plugged[CA_CERT])
    stranger = issue(ours, account("shop/caller"))
    client, server = mesh.join("shop/caller", mesh.listen("shop/called"), mesh.address("shop/called"))
    pairs = [("shop/caller", "shop/called"), ("shop/caller", "shop/near")]
    with Load(mesh, pairs, (IPv4Address, IPv6Address)) as load:
        wait_for(mesh, (), serials(old))
        put(place, {ROOT_CERT: old + new})
        wait_for(mesh, (), serials(old, new))
        put(place, {**plugged, CA_KEY: ours_key(place)})  # a mistake: refused, and A signs on
        for node in NODES:
            lab.wait_until(lambda: mesh.figures(node).total("ztunnel_authority_faults") == 1, "it is told")  # noqa: B023
        assert in_use(mesh) == {((), serials(old, new))}
        put(place, {**plugged, ROOT_CERT: new + old})
        wait_for(mesh, signer, serials(new, old))
        put(place, {ROOT_CERT: new})
        wait_for(mesh, signer, serials(new))
        client.sendall(b"still here")
        assert read_exactly(server, 10) == b"still here"
    assert load.failed() == []
    assert load.answered > 100
    refused_by(mesh, stranger)
    for node in NODES:
        assert mesh.grown(node, "ztunnel_certificates_failed_total") == 0
        assert mesh.figures(node).total("ztunnel_authority_faults") == 0
        said = [line["message"] for line in mesh.lines(node) if line["scope"] == "ca"]
        assert said == [
            "certificate authority in force",
            "certificate authority refused, the one before stays in force",
            "certificate authority in force",
            "the files of the certificate authority are good again",
            "certificate authority in force",
        ]


def ours_key(place: Path) -> str:
    return (place / KEY_FILE).read_text()


def refused_by(mesh: Mesh, paper: Paper) -> None:
    """What the old root has signed proves nothing any more."""
    tunnel = Paper(paper.key, paper.chain, authority(mesh).roots_pem)
    sock = mesh.connect("out/peer", mesh.address("shop/called"), 15008)
    with tunnel.context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(sock) as tls, pytest.raises(ssl.SSLError):
        tls.recv(1)  # TLS 1.3: the client learns of it with the first byte
