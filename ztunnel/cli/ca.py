"""Make a root and, for each cluster, an intermediate in the form of Istio's `cacerts`."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ztunnel.errors import ConfigError, Fault, PeerError
from ztunnel.identity import template
from ztunnel.identity.authority import read_authority
from ztunnel.identity.chain import parse_certificates
from ztunnel.identity.plugged_in import CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT, assemble
from ztunnel.identity.sign import KEY_FILE, load_authority
from ztunnel.identity.template import SigningKey

_PEM = serialization.Encoding.PEM
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_DAYS = click.IntRange(1, 36_500)

_folder = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="certs",
    show_default=True,
    help="Where the root is, and below it a folder for each cluster.",
)
_key = click.option(
    "--key", "kind", type=click.Choice(["ec", "rsa"]), default="ec", show_default=True,
    help="EC on P-256, or RSA of 4096 bits.",
)  # fmt: skip


@click.group()
def ca() -> None:
    """Make a root, and for each cluster an intermediate for the Secret `cacerts`.

    The root's key is needed to make intermediates and for nothing else: keep it off the clusters.
    """


@ca.command()
@_folder
@_key
@click.option("--days", type=_DAYS, default=3650, show_default=True, help="How long it is valid.")
def root(folder: Path, kind: str, days: int) -> None:
    """Make a root: root-cert.pem and root-key.pem in the folder."""
    key = _new_key(kind)
    certificate = template.root(key, datetime.now(UTC), timedelta(days=days))
    with _disk_faults(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (KEY_FILE, ROOT_CERT):
            _refuse(folder / name)
        _write(folder, {KEY_FILE: _private(key), ROOT_CERT: certificate.public_bytes(_PEM)})
    click.echo(f"{folder / ROOT_CERT}: valid until {certificate.not_valid_after_utc:%Y-%m-%d}")
    click.echo(f"{folder / KEY_FILE}: keep it off the clusters, and where you will find it in {days} days")
    click.echo(f"\nNext: ztunnel ca cluster NAME{_given(folder)}")


@ca.command()
@click.argument("name")
@_folder
@_key
@click.option(
    "--days", type=_DAYS, default=730, show_default=True, help="How long it is valid; at most its root."
)
@click.option("--trust-domain", default="cluster.local", show_default=True, help="Whose identities it signs.")
@click.option(
    "--constrain", is_flag=True,
    help="Let it sign for the trust domain only (a name constraint): Istio's ztunnel refuses such.",
)  # fmt: skip
@click.option(
    "--also-trust", type=click.Path(exists=True, dir_okay=False, path_type=Path), multiple=True,
    help="Further roots, for a rotation: the other root's root-cert.pem.",
)  # fmt: skip
@click.option("--namespace", default="ztunnel-system", show_default=True, help="Where the Secret goes.")
def cluster(
    name: str,
    folder: Path,
    kind: str,
    days: int,
    trust_domain: str,
    constrain: bool,
    also_trust: tuple[Path, ...],
    namespace: str,
) -> None:
    """Make an intermediate for one cluster: the four files of `cacerts` in a folder of its name."""
    if not _NAME.fullmatch(name):
        raise click.UsageError(f"{name!r} is not a name of lower-case letters, digits, dots and dashes")
    now = datetime.now(UTC)
    place = folder / name
    if not (folder / KEY_FILE).exists():
        raise click.ClickException(f"{folder / KEY_FILE}: no root yet: ztunnel ca root{_given(folder)}")
    with _disk_faults(place):
        _refuse(place)
        above = load_authority(folder, now, trust_domain)
        key = _new_key(kind)
        certificate = template.intermediate(
            key, name, above.issuer, (now, timedelta(days=days)), trust_domain if constrain else ""
        )
        own, roots = certificate.public_bytes(_PEM), above.roots_pem.encode()
        files = {
            CA_CERT: own,
            CA_KEY: _private(key),
            CERT_CHAIN: own + above.certificate.public_bytes(_PEM),
            ROOT_CERT: roots + b"".join(_further(path) for path in also_trust),
        }
        read_authority(assemble(files, lambda which: str(place / which)), trust_domain, now)
        _write_folder(place, files)
    click.echo(f"{place}: valid until {certificate.not_valid_after_utc:%Y-%m-%d}")
    parts = " ".join(f"--from-file={place / which}" for which in files)
    click.echo(f"\nNext: kubectl create secret generic cacerts -n {namespace} {parts}")


def _new_key(kind: str) -> SigningKey:
    return rsa.generate_private_key(65537, 4096) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())


def _private(key: SigningKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _further(path: Path) -> bytes:
    """The certificates in a file of the operator's, written anew."""
    try:
        found = parse_certificates(path.read_text())
    except (PeerError, UnicodeDecodeError) as error:
        raise ConfigError(Fault(str(path), 0, "", str(error))) from error
    return b"".join(one.public_bytes(_PEM) for one in found)


def _given(folder: Path) -> str:
    return "" if folder == Path("certs") else f" --folder {folder}"


def _refuse(path: Path) -> None:
    """A key that is lost cannot be had again, so nothing is overwritten."""
    if path.exists() or path.is_symlink():
        raise click.ClickException(f"{path} is there already, and is not overwritten: move it away first")


def _write_folder(place: Path, files: Mapping[str, bytes]) -> None:
    """All four or none: in a folder of another name first."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))  # mode 0700
    try:
        _write(temporary, files)
        temporary.rename(place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        mode = 0o600 if "key" in name else 0o644
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _disk_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"{error.filename or path}: {error.strerror}") from error
