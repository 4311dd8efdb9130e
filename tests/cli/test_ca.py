"""`ztunnel ca` makes what `cacerts` is to hold, tells what to do with it, and overwrites nothing."""

from __future__ import annotations

import os
import shlex
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.identity.builders import ALICE, PEM
from ztunnel.cli.main import main
from ztunnel.identity import csr, template
from ztunnel.identity.issued import accept
from ztunnel.identity.plugged_in import CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT
from ztunnel.identity.sign import load_authority

FOUR = {CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT}
DAY = timedelta(days=1)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["ca", *map(str, arguments)])


def make(folder: Path, *options: object) -> str:
    result = run(*options, "--folder", folder)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    return tmp_path / "certs"


@pytest.fixture
def rooted(certs: Path) -> Path:
    make(certs, "root")
    return certs


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


def days(found: x509.Certificate) -> int:
    return (found.not_valid_after_utc - found.not_valid_before_utc).days


def test_a_root_is_made_for_ten_years_with_a_key_that_only_we_read(rooted: Path) -> None:
    assert set(os.listdir(rooted)) == {"root-cert.pem", "root-key.pem"}
    assert stat.S_IMODE((rooted / "root-key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(rooted.stat().st_mode) == 0o700
    assert days(certificate(rooted / "root-cert.pem")) == 3650


def test_a_cluster_gets_exactly_the_four_files_and_they_sign(rooted: Path) -> None:
    make(rooted, "cluster", "east")
    place = rooted / "east"
    assert set(os.listdir(place)) == FOUR
    assert [name for name in FOUR if stat.S_IMODE((place / name).stat().st_mode) == 0o600] == [CA_KEY]
    assert days(certificate(place / CA_CERT)) == 730
    now = datetime.now(UTC)
    request = csr.create(ALICE)
    answer = load_authority(place, now, "cluster.local").sign(request.csr_pem, ALICE, 3600, now)
    assert accept(answer, ALICE, request, now).roots_pem == (rooted / ROOT_CERT).read_text()


def test_clusters_of_one_root_trust_each_other_and_are_told_apart(rooted: Path) -> None:
    for name in ("east", "west"):
        make(rooted, "cluster", name)
    east, west = (certificate(rooted / name / CA_CERT) for name in ("east", "west"))
    assert (rooted / "east" / ROOT_CERT).read_text() == (rooted / "west" / ROOT_CERT).read_text()
    assert east.subject != west.subject
    assert east.public_key() != west.public_key()


def test_what_is_said_is_the_command_that_makes_the_secret(rooted: Path) -> None:
    said = make(rooted, "cluster", "east", "--namespace", "istio-system")
    command = shlex.split(said.partition("Next: ")[2])
    assert command[:7] == ["kubectl", "create", "secret", "generic", "cacerts", "-n", "istio-system"]
    files = [Path(each.removeprefix("--from-file=")) for each in command[7:]]
    assert {file.name for file in files} == FOUR
    assert all(file.exists() for file in files)


def test_an_intermediate_ends_with_its_root_at_the_latest(certs: Path) -> None:
    make(certs, "root", "--days", 30)
    make(certs, "cluster", "east")
    ends = [certificate(path).not_valid_after_utc for path in (certs / ROOT_CERT, certs / "east" / CA_CERT)]
    assert ends[0] == ends[1]


def test_an_intermediate_signs_leafs_and_no_authorities(rooted: Path) -> None:
    make(rooted, "cluster", "east")
    found = certificate(rooted / "east" / CA_CERT)
    assert found.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


@pytest.mark.timeout(60)  # two of 4096 bits
def test_keys_may_be_rsa(certs: Path) -> None:
    make(certs, "root", "--key", "rsa")
    make(certs, "cluster", "east", "--key", "rsa")
    for path in (certs / ROOT_CERT, certs / "east" / CA_CERT):
        key = certificate(path).public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        assert key.key_size == 4096


def test_a_constrained_intermediate_is_for_one_trust_domain(rooted: Path) -> None:
    make(rooted, "cluster", "east", "--trust-domain", "example.org", "--constrain")
    names = certificate(rooted / "east" / CA_CERT).extensions.get_extension_for_class(x509.NameConstraints)
    assert names.critical
    assert [name.value for name in names.value.permitted_subtrees or ()] == ["example.org"]


def test_for_a_rotation_the_other_root_is_trusted_too(rooted: Path, tmp_path: Path) -> None:
    make(tmp_path / "new", "root")
    make(tmp_path / "new", "cluster", "east", "--also-trust", rooted / ROOT_CERT)
    both = (tmp_path / "new" / ROOT_CERT).read_text() + (rooted / ROOT_CERT).read_text()
    assert (tmp_path / "new" / "east" / ROOT_CERT).read_text() == both


def test_nothing_is_overwritten(rooted: Path) -> None:
    make(rooted, "cluster", "east")
    before = {path: path.read_bytes() for path in rooted.rglob("*.pem")}
    for arguments in (["root"], ["cluster", "east"]):
        result = run(*arguments, "--folder", rooted)
        assert result.exit_code == 1
        assert "is there already, and is not overwritten" in result.output
    assert {path: path.read_bytes() for path in rooted.rglob("*.pem")} == before


def test_without_a_root_the_command_for_one_is_named(certs: Path) -> None:
    result = run("cluster", "east", "--folder", certs)
    assert result.exit_code == 1
    assert f"no root yet: ztunnel ca root --folder {certs}" in result.output


@pytest.mark.parametrize("name", ["", "../east", "East", "a b", "-x"])
def test_a_cluster_has_a_name_that_can_be_a_folder(rooted: Path, name: str) -> None:
    result = run("cluster", "--folder", rooted, "--", name)
    assert result.exit_code == 2
    assert "is not a name" in result.output


def test_roots_to_trust_that_are_none_are_told_and_nothing_is_left(rooted: Path, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_text("hello")
    result = run("cluster", "east", "--folder", rooted, "--also-trust", tmp_path / "other.pem")
    assert result.exit_code == 1
    assert "other.pem: not a text of PEM certificates" in result.output
    assert set(os.listdir(rooted)) == {"root-cert.pem", "root-key.pem"}


def test_a_disk_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "certs").write_text("a file")
    result = run("root", "--folder", tmp_path / "certs")
    assert result.exit_code != 0
    assert "certs" in result.output


def test_a_root_that_has_expired_signs_no_more_intermediates(certs: Path) -> None:
    make(certs, "root")
    key = load_authority(certs, datetime.now(UTC), "x").key
    old = template.root(key, datetime.now(UTC) - 10 * DAY, 5 * DAY)
    (certs / ROOT_CERT).write_bytes(old.public_bytes(PEM))
    result = run("cluster", "east", "--folder", certs)
    assert result.exit_code == 1
    assert "the root expired at" in result.output
