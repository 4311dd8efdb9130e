"""The mesh's own certificate authority: a root key and certificate in a directory, and leafs signed by it.

| file | mode | holds |
|---|---|---|
| `root-key.pem` | 0600 | the private key of the first certificate in `root-cert.pem`: PKCS#8, EC or RSA |
| `root-cert.pem` | 0644 | the root that signs; after it, if the operator adds any, others to trust as well |

The directory (0700) and both files are made at the first start and kept from then on. The key comes
first, under a lock on the directory, each file by way of a temporary one, fsync and rename: a start that was
cut short leaves nothing or a key alone, and the next one finishes the work. Where both stand, they are read
without a lock.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ztunnel.errors import ConfigError, Fault, PeerError
from ztunnel.identity import csr, template
from ztunnel.identity.chain import parse_certificates
from ztunnel.identity.san import MALFORMED
from ztunnel.identity.template import SigningKey
from ztunnel.model.identity import SpiffeId

KEY_FILE = "root-key.pem"
CERT_FILE = "root-cert.pem"

_PEM = serialization.Encoding.PEM
_AFRESH = "put back the one that belongs there, or remove both files to start with a new root"


class Authority:
    """Signs for the mesh. Made by `open`; holds the root key in memory from then on."""

    def __init__(self, key: SigningKey, roots: list[x509.Certificate], cert_path: Path) -> None:
        self._key = key
        self._root = roots[0]
        self._cert_path = cert_path
        self.roots_pem = "".join(root.public_bytes(_PEM).decode() for root in roots)

    @classmethod
    def open(cls, directory: Path, now: datetime | None = None) -> Authority:
        """Read the root in `directory`, or make one.

        Waits for the disk, and for another process that is making one: before the loop runs, or in a thread.

        Args:
            now: the present by default.

        Raises:
            ConfigError: the directory or a file in it cannot be used; says which one, why, and what fixes it.
        """
        now = now or datetime.now(UTC)
        with _disk_faults(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_directory(directory)
            if not (directory / CERT_FILE).exists():
                _make(directory, now)
        authority = _load(directory)
        authority._check_validity(now)
        return authority

    @property
    def not_after(self) -> datetime:
        """When the root expires, and with it every leaf."""
        return self._root.not_valid_after_utc

    def sign(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float, now: datetime) -> list[str]:
        """Sign a request for exactly `identity`, which the caller knows the requester may have.

        Returns:
            PEM texts: the leaf, then the bundle of roots.

        Raises:
            PeerError: the request is malformed, for somebody else, or does not prove possession of its key.
            ConfigError: the root has expired since it was opened.
        """
        self._check_validity(now)
        asked = csr.parse(csr_pem)
        if asked.identity != identity:
            raise PeerError(f"the signing request is for {asked.identity}, the requester is {identity}")
        leaf = template.leaf(asked, ttl_seconds, (self._key, self._root), now)
        return [leaf.public_bytes(_PEM).decode(), self.roots_pem]

    def _check_validity(self, now: datetime) -> None:
        begin, end = self._root.not_valid_before_utc, self._root.not_valid_after_utc
        if now < begin:
            raise _fault(
                self._cert_path, f"the root is not valid before {begin}; here it is {now}: set the clock"
            )
        if now >= end:
            raise _fault(
                self._cert_path, f"the root expired at {end}: remove it and {KEY_FILE} for a new root"
            )


def _load(directory: Path) -> Authority:
    """Both files, each fault of each at once."""
    faults: list[Fault] = []
    key: SigningKey | None = None
    roots: list[x509.Certificate] = []
    try:
        key = _read_key(directory / KEY_FILE)
    except ConfigError as error:
        faults.extend(error.faults)
    try:
        roots = _read_roots(directory / CERT_FILE)
    except ConfigError as error:
        faults.extend(error.faults)
    if key is None or not roots:
        raise ConfigError(*faults)
    if roots[0].public_key() != key.public_key():
        raise _fault(directory / KEY_FILE, f"not the key of the first certificate in {CERT_FILE}: {_AFRESH}")
    return Authority(key, roots, directory / CERT_FILE)


def _read_key(path: Path) -> SigningKey:
    try:
        with _disk_faults(path), path.open("rb") as file:
            status = os.fstat(file.fileno())
            text = file.read()
    except ConfigError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise _fault(path, f"missing, while {CERT_FILE} is there: {_AFRESH}") from error
        raise
    if status.st_mode & 0o077:
        raise _fault(
            path, f"mode {stat.S_IMODE(status.st_mode):04o} lets others read the key: chmod 600 {path}"
        )
    if status.st_uid not in (0, os.geteuid()):
        raise _fault(path, f"belongs to uid {status.st_uid}, who may change it: chown {os.geteuid()} {path}")
    try:
        key = serialization.load_pem_private_key(text, None)
    except MALFORMED as error:
        raise _fault(path, f"not a private key in PEM without a password ({error}): {_AFRESH}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise _fault(path, f"neither an EC nor an RSA key: {_AFRESH}")
    return key


def _read_roots(path: Path) -> list[x509.Certificate]:
    with _disk_faults(path):
        text = path.read_bytes()
    try:
        roots = parse_certificates(text.decode("ascii", "replace"))
        constraints = roots[0].extensions.get_extension_for_class(x509.BasicConstraints).value
        roots[0].public_key()
    except PeerError as error:
        raise _fault(path, f"{error}: {_AFRESH}") from error
    except (x509.ExtensionNotFound, *MALFORMED) as error:
        raise _fault(path, f"its first certificate is not a CA's ({error}): {_AFRESH}") from error
    if not constraints.ca:
        raise _fault(path, f"its first certificate is not a CA's: {_AFRESH}")
    return roots


def _make(directory: Path, now: datetime) -> None:
    """The root's two files, unless another process has made them while we waited for the lock."""
    with _locked(directory):
        if (directory / CERT_FILE).exists():
            return
        key_path = directory / KEY_FILE
        if key_path.exists():  # the start before this one was cut short between the two
            key = _read_key(key_path)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            pem = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            _write(key_path, pem, 0o600)
        _write(directory / CERT_FILE, template.root(key, now).public_bytes(_PEM), 0o644)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Alone in `directory` among those that lock it. The kernel ends the lock with the process."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes, mode: int) -> None:
    """All of `content` under `path`'s name, or nothing. With the lock held, the temporary name is ours."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.rename(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _check_directory(directory: Path) -> None:
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & 0o022:
        raise _fault(directory, f"mode {mode:04o} lets others replace the root key: chmod 700 {directory}")


@contextmanager
def _disk_faults(path: Path) -> Iterator[None]:
    """An error of the file system as the operator's: `path`, what happened, and the fix."""
    try:
        yield
    except OSError as error:
        where = Path(error.filename) if isinstance(error.filename, str | os.PathLike) else path
        fix = "the root key and certificate need a directory that this process can write and that has space"
        raise _fault(where, f"{error.strerror}: {fix}") from error


def _fault(path: Path, message: str) -> ConfigError:
    return ConfigError(Fault(str(path), 0, "", message))
