"""A root that is made once, kept, and complains clearly; and what it signs."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from tests.identity import builders
from tests.identity.builders import ALICE, BOB, NOW, PEM, new_key, pem_of
from ztunnel.errors import ConfigError, PeerError
from ztunnel.identity import csr, template
from ztunnel.identity.authority import Authority
from ztunnel.identity.issued import accept
from ztunnel.identity.sign import CERT_FILE, KEY_FILE, open_authority

HOUSE = Path(__file__).parents[2]
OPEN = "import sys, pathlib; from ztunnel.identity.sign import open_authority; "
REPORT = OPEN + (
    "from ztunnel.errors import ConfigError\n"
    "try: print(open_authority(pathlib.Path(sys.argv[1])).roots_pem)\n"
    "except ConfigError as error: print('fault:', error)"
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ca"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_makes_a_root_that_others_cannot_read(home: Path) -> None:
    open_authority(home, NOW)
    assert sorted(os.listdir(home)) == [CERT_FILE, KEY_FILE]
    assert mode_of(home) == 0o700
    assert mode_of(home / KEY_FILE) == 0o600


def test_the_next_start_keeps_the_root(home: Path) -> None:
    first = open_authority(home, NOW)
    again = open_authority(home, NOW + timedelta(days=1))
    assert again.roots_pem == first.roots_pem == (home / CERT_FILE).read_text()
    assert again.not_after == first.not_after


def test_a_root_in_a_directory_that_cannot_be_written_is_read(home: Path) -> None:
    first = open_authority(home, NOW)
    home.chmod(0o500)
    assert open_authority(home, NOW).roots_pem == first.roots_pem


def test_the_present_is_the_machine_s_where_none_is_given(home: Path) -> None:
    authority = open_authority(home)
    assert authority.sign(csr.create(ALICE).csr_pem, ALICE, 60, authority.not_after - timedelta(days=3649))


def test_a_start_that_was_cut_short_is_finished_by_the_next(home: Path) -> None:
    open_authority(home, NOW)
    key = (home / KEY_FILE).read_bytes()
    (home / CERT_FILE).unlink()
    (home / f"{CERT_FILE}.new").write_text("half a certi")
    authority = open_authority(home, NOW)
    assert (home / KEY_FILE).read_bytes() == key
    assert authority.sign(csr.create(ALICE).csr_pem, ALICE, 60, NOW)
    assert sorted(os.listdir(home)) == [CERT_FILE, KEY_FILE]


@pytest.mark.timeout(60)
def test_several_processes_that_start_at_once_agree_on_one_root(home: Path) -> None:
    command = [sys.executable, "-c", REPORT, str(home)]
    racers = [subprocess.Popen(command, cwd=HOUSE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = {racer.communicate()[0].strip() for racer in racers}
    assert said == {(home / CERT_FILE).read_text().strip()}


def test_further_roots_are_given_out_and_the_first_signs(home: Path) -> None:
    first = open_authority(home, NOW)
    other = builders.Authority.root("old")
    with (home / CERT_FILE).open("a") as file:
        file.write(other.pem)
    request = csr.create(ALICE)
    answer = open_authority(home, NOW).sign(request.csr_pem, ALICE, 60, NOW)
    assert answer[-1] == first.roots_pem + other.pem
    assert accept(answer, ALICE, request, NOW)


def test_an_operator_s_own_rsa_root_signs(home: Path) -> None:
    home.mkdir(parents=True, mode=0o700)
    key = rsa.generate_private_key(65537, 2048)
    write(home / KEY_FILE, pem_of(key), 0o600)
    write(home / CERT_FILE, template.root(key, NOW).public_bytes(PEM).decode(), 0o644)
    request = csr.create(ALICE)
    assert accept(open_authority(home, NOW).sign(request.csr_pem, ALICE, 60, NOW), ALICE, request, NOW)


# --- faults of the operator --------------------------------------------------------------


def write(path: Path, text: str, mode: int) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
    path.chmod(mode)


def become_directory(home: Path) -> None:
    (home / CERT_FILE).unlink()
    (home / CERT_FILE).mkdir()


def key_pem_of_another_kind() -> str:
    return pem_of(ed25519.Ed25519PrivateKey.generate())  # type: ignore[arg-type]


FAULTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a key of another root": (
        lambda home: write(home / KEY_FILE, pem_of(new_key()), 0o600),
        KEY_FILE,
        "not the key of",
    ),
    "a key that others can read": (lambda home: (home / KEY_FILE).chmod(0o640), KEY_FILE, "chmod 600"),
    "a directory that others can write": (lambda home: home.chmod(0o777), "ca", "chmod 700"),
    "no key": (lambda home: (home / KEY_FILE).unlink(), KEY_FILE, "missing, while root-cert.pem is there"),
    "an empty key": (lambda home: write(home / KEY_FILE, "", 0o600), KEY_FILE, "not a private key in PEM"),
    "a key of another kind": (
        lambda home: write(home / KEY_FILE, key_pem_of_another_kind(), 0o600),
        KEY_FILE,
        "neither an EC nor an RSA key",
    ),
    "a certificate in place of the key": (
        lambda home: write(home / KEY_FILE, (home / CERT_FILE).read_text(), 0o600),
        KEY_FILE,
        "not a private key",
    ),
    "a torn certificate": (
        lambda home: write(home / CERT_FILE, (home / CERT_FILE).read_text()[:-80], 0o644),
        CERT_FILE,
        "not a text of PEM certificates",
    ),
    "bytes in place of a certificate": (
        lambda home: (home / CERT_FILE).write_bytes(b"\xff\x00" * 40),
        CERT_FILE,
        "not a text of PEM certificates",
    ),
    "a leaf in place of the root": (
        lambda home: write(
            home / CERT_FILE,
            open_authority(home, NOW).sign(csr.create(ALICE).csr_pem, ALICE, 60, NOW)[0],
            0o644,
        ),
        CERT_FILE,
        "is not a CA's",
    ),
    "a certificate that is a directory": (
        become_directory,
        CERT_FILE,
        "Is a directory",
    ),
}


@pytest.mark.parametrize(("spoil", "name", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_the_operator_is_told_of(
    home: Path, spoil: Callable[[Path], object], name: str, message: str
) -> None:
    open_authority(home, NOW)
    spoil(home)
    with pytest.raises(ConfigError, match=message) as refusal:
        open_authority(home, NOW)
    assert [Path(fault.file).name for fault in refusal.value.faults] == [name]


@pytest.mark.root
def test_a_key_that_belongs_to_another_user_is_told(home: Path) -> None:
    open_authority(home, NOW)
    os.chown(home / KEY_FILE, 65534, 65534)
    with pytest.raises(ConfigError, match=f"belongs to uid 65534.* chown 0 {home / KEY_FILE}"):
        open_authority(home, NOW)


def test_faults_of_both_files_are_told_at_once(home: Path) -> None:
    open_authority(home, NOW)
    write(home / KEY_FILE, "x", 0o600)
    write(home / CERT_FILE, "x", 0o644)
    with pytest.raises(ConfigError) as refusal:
        open_authority(home, NOW)
    assert [Path(fault.file).name for fault in refusal.value.faults] == [KEY_FILE, CERT_FILE]


@pytest.mark.parametrize(("days", "message"), [(3651, "the root expired at"), (-1, "set the clock")])
def test_a_root_outside_its_time_is_refused(home: Path, days: int, message: str) -> None:
    authority = open_authority(home, NOW)
    then = NOW + timedelta(days=days)
    with pytest.raises(ConfigError, match=message) as refusal:
        open_authority(home, then)
    assert refusal.value.faults[0].file == str(home / CERT_FILE)
    with pytest.raises(ConfigError, match=message):
        authority.sign(csr.create(ALICE).csr_pem, ALICE, 60, then)


def test_a_file_where_the_directory_should_be_is_told(home: Path) -> None:
    home.parent.mkdir()
    home.write_text("")
    with pytest.raises(ConfigError, match="File exists"):
        open_authority(home, NOW)


@pytest.mark.root
def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    as_nobody = REPORT.replace("\n", "\nimport os; os.setuid(65534)\n", 1)
    command = [sys.executable, "-c", as_nobody, str(tmp_path / "ca")]
    said = subprocess.run(command, cwd=HOUSE, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert said.startswith(f"fault: {tmp_path}/ca: Permission denied")


@pytest.mark.root
def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=4k,mode=700 full "$1" && "$2" -c "$3" "$1" && ls -a "$1"'
    arguments = [str(tmp_path), sys.executable, REPORT]
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *arguments]
    said = subprocess.run(command, cwd=HOUSE, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert said.startswith(f"fault: {tmp_path}: No space left on device")
    assert said.splitlines()[1:] == [".", "..", KEY_FILE]


# --- signing -----------------------------------------------------------------------------


@pytest.fixture
def authority(home: Path) -> Authority:
    return open_authority(home, NOW)


def test_what_is_signed_is_what_a_node_accepts(authority: Authority) -> None:
    request = csr.create(ALICE)
    answer = authority.sign(request.csr_pem, ALICE, 3600, NOW)
    taken = accept(answer, ALICE, request, NOW)
    assert len(answer) == 2
    assert taken.roots_pem == authority.roots_pem
    assert taken.not_after == NOW + timedelta(hours=1)


def test_another_identity_than_the_requester_s_is_not_signed(authority: Authority) -> None:
    with pytest.raises(PeerError, match=r"for .*/bob, the requester is .*/alice"):
        authority.sign(csr.create(BOB).csr_pem, ALICE, 60, NOW)


def test_a_malformed_request_is_not_signed(authority: Authority) -> None:
    with pytest.raises(PeerError, match="not a signing request"):
        authority.sign("hello", ALICE, 60, NOW)
