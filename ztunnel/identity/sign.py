"""The mesh's own certificate authority in a folder: opened, made where there is none, read again later.

| file | mode | holds |
|---|---|---|
| `root-key.pem` | 0600 | the private key of one of the certificates in `root-cert.pem`: PKCS#8, EC or RSA |
| `root-cert.pem` | 0644 | the root that signs, and others to trust as well, in any order |

The folder (0700) and both files are made at the first start and kept from then on. The key comes first, under
a lock on the folder, each file by way of a temporary one, fsync and rename: a start that was cut short leaves
nothing or a key alone, and the next one finishes the work. Where both stand, they are read without a lock.

A folder with `ca-cert.pem` or `tls.crt` in it holds an authority of the operator's (`plugged_in`). There
nothing is ever made.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ztunnel.errors import ConfigError, Fault
from ztunnel.identity import template
from ztunnel.identity.authority import Authority, read_authority
from ztunnel.identity.plugged_in import NAMES, Text, Texts, assemble, is_plugged_in, read_key

KEY_FILE = "root-key.pem"
CERT_FILE = "root-cert.pem"

TRUST_DOMAIN = "cluster.local"

_PEM = serialization.Encoding.PEM
_AFRESH = "put back the one that belongs there, or remove both files to start with a new root"
_ROOM = "the root key and certificate need a directory that this process can write and that has space"
_MAX_BYTES = 1 << 20
_VOLUME = "..data"
"""What a Secret or ConfigMap that Kubernetes mounts has in it: modes there are the pod's `defaultMode`, and
who else is in the container is the pod's business."""


class Stamp(NamedTuple):
    """What says whether a file is another one than before."""

    inode: int
    size_bytes: int
    changed_ns: int


def open_authority(
    directory: Path, now: datetime | None = None, trust_domain: str = TRUST_DOMAIN
) -> Authority:
    """Read the authority in `directory`, or make a root.

    Waits for the disk, and for another process that is making one: before the loop runs, or in a thread.

    Args:
        now: the present by default.
        trust_domain: whose identities it is to sign.

    Raises:
        ConfigError: the directory or a file in it cannot be used; says which one, why, and what fixes it.
    """
    now = now or datetime.now(UTC)
    with _disk_faults(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_directory(directory)
        if not is_plugged_in(os.listdir(directory)) and not (directory / CERT_FILE).exists():
            _make(directory, now)
    return load_authority(directory, now, trust_domain)


def load_authority(directory: Path, now: datetime, trust_domain: str) -> Authority:
    """Read the authority that is in `directory`.

    Raises:
        ConfigError: as `open_authority`, and where there is none.
    """
    with _disk_faults(directory, "a folder with ca-cert.pem, ca-key.pem and root-cert.pem has to be there"):
        names = os.listdir(directory)
    if not is_plugged_in(names) and not {KEY_FILE, CERT_FILE} & set(names):
        raise _fault(directory, "no certificate authority is in it: ca-cert.pem, ca-key.pem, root-cert.pem")
    if not is_plugged_in(names):
        texts = _own_texts(directory)
    else:
        mounted = _VOLUME in names
        found = {name: _read(directory / name, mounted) for name in NAMES if name in names}
        texts = assemble(found, lambda name: str(directory / name))
    return read_authority(texts, trust_domain, now)


def stamp_authority(directory: Path) -> dict[str, Stamp]:
    """How the files stand that an authority can be of; those that are not there are left out."""
    found: dict[str, Stamp] = {}
    for name in NAMES | {KEY_FILE}:
        with suppress(OSError):
            status = (directory / name).stat()
            found[name] = Stamp(status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def _own_texts(directory: Path) -> Texts:
    """Both files of our own, each fault of each at once."""
    faults: list[Fault] = []
    found: dict[str, bytes] = {}
    for name, other in ((KEY_FILE, CERT_FILE), (CERT_FILE, KEY_FILE)):
        try:
            found[name] = _read(directory / name)
        except ConfigError as error:
            missing = isinstance(error.__cause__, FileNotFoundError)
            message = f"missing, while {other} is there: {_AFRESH}"
            faults += _fault(directory / name, message).faults if missing else error.faults
    if faults:
        raise ConfigError(*faults)
    key, roots = (Text(str(directory / name), found[name]) for name in (KEY_FILE, CERT_FILE))
    return Texts(key, roots, fix=_AFRESH)


def _read(path: Path, mounted: bool = False) -> bytes:
    with _disk_faults(path), path.open("rb") as file:
        status = os.fstat(file.fileno())
        text = file.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise _fault(path, f"larger than {_MAX_BYTES} bytes: not the files of an authority")
    if mounted or "key" not in path.name:
        return text
    if status.st_mode & 0o077:
        raise _fault(
            path, f"mode {stat.S_IMODE(status.st_mode):04o} lets others read the key: chmod 600 {path}"
        )
    if status.st_uid not in (0, os.geteuid()):
        raise _fault(path, f"belongs to uid {status.st_uid}, who may change it: chown {os.geteuid()} {path}")
    return text


def _make(directory: Path, now: datetime) -> None:
    """The root's two files, unless another process has made them while we waited for the lock."""
    with _locked(directory):
        if (directory / CERT_FILE).exists():
            return
        key_path = directory / KEY_FILE
        if key_path.exists():  # the start before this one was cut short between the two
            key = read_key(Text(str(key_path), _read(key_path)), _AFRESH)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            pem = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            write_whole(key_path, pem, 0o600)
        write_whole(directory / CERT_FILE, template.root(key, now).public_bytes(_PEM), 0o644)


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


def write_whole(path: Path, content: bytes, mode: int) -> None:
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
    status = directory.stat()
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o022 and not (directory / _VOLUME).exists():
        raise _fault(directory, f"mode {mode:04o} lets others replace the root key: chmod 700 {directory}")


@contextmanager
def _disk_faults(path: Path, fix: str = _ROOM) -> Iterator[None]:
    """An error of the file system as the operator's: `path`, what happened, and the fix."""
    try:
        yield
    except OSError as error:
        where = Path(error.filename) if isinstance(error.filename, str | os.PathLike) else path
        raise _fault(where, f"{error.strerror}: {fix}") from error


def _fault(path: Path, message: str) -> ConfigError:
    return ConfigError(Fault(str(path), 0, "", message))
