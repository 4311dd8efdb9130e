"""Reads a folder of manifests: which files are in it, whether they hold still, what stands in them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from ztunnel.errors import ConfigError, Fault

SUFFIXES: Final = (".yaml", ".yml", ".json")
MAX_FILE_BYTES: Final = 64 * 2**20
MAX_FILES: Final = 50_000
MAX_DEPTH: Final = 16


class Stamp(NamedTuple):
    """What tells one state of a file from another without reading it."""

    modified_ns: int
    size_bytes: int
    inode: int


def look(folder: Path, max_files: int = MAX_FILES) -> dict[str, Stamp]:
    """The manifests below `folder` by their path in it. Hidden files and folders do not count (editors' and
    Kubernetes' own: `..data`); a link to a file counts as that file.

    Raises:
        ConfigError: the folder is gone, is none, cannot be read, or holds more than `max_files`.
    """
    found: dict[str, Stamp] = {}
    for name, stamp in _walk(folder, "", 0):
        found[name] = stamp
        if len(found) > max_files:
            raise ConfigError(Fault(str(folder), 0, "", f"more than {max_files} manifests"))
    return found


def read(folder: Path, name: str, stamp: Stamp) -> str | Fault | None:
    """A file's text, or the fault that keeps it from being read, or None where it is not (or no longer) in
    the state of `stamp`: it is being written and will be looked at again."""
    try:
        with open(folder / name, "rb") as file:
            if _stamp(os.fstat(file.fileno())) != stamp:
                return None
            if stamp.size_bytes > MAX_FILE_BYTES:
                return Fault(name, 0, "", f"larger than {MAX_FILE_BYTES // 2**20} MiB")
            content = file.read(MAX_FILE_BYTES + 1)
            if _stamp(os.fstat(file.fileno())) != stamp or len(content) != stamp.size_bytes:
                return None
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Fault(name, content.count(b"\n", 0, error.start) + 1, "", "not UTF-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        return Fault(name, 0, "", f"cannot be read: {error.strerror}")


def read_all(
    folder: Path, stamps: Mapping[str, Stamp], before: Mapping[str, tuple[Stamp, str | Fault]]
) -> dict[str, tuple[Stamp, str | Fault]]:
    """Every file of `stamps`; from `before` where its stamp is the same, or it moved under the reading."""
    result = {}
    for name, stamp in stamps.items():
        old = before.get(name)
        if old is not None and old[0] == stamp and isinstance(old[1], str):
            result[name] = old
            continue
        text = read(folder, name, stamp)
        if text is not None:
            result[name] = (stamp, text)
        elif old is not None:
            result[name] = old
    return result


def _walk(folder: Path, below: str, depth: int) -> Iterator[tuple[str, Stamp]]:
    try:
        with os.scandir(folder / below) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                name = f"{below}/{entry.name}" if below else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if depth < MAX_DEPTH:
                        yield from _walk(folder, name, depth + 1)
                elif entry.name.endswith(SUFFIXES):
                    yield from _file(entry, name)
    except FileNotFoundError as error:
        if not below:
            raise _unusable(folder, below, error) from error
    except OSError as error:
        raise _unusable(folder, below, error) from error


def _file(entry: os.DirEntry[str], name: str) -> Iterator[tuple[str, Stamp]]:
    """The file, if it is one and still there."""
    try:
        status = entry.stat()
    except FileNotFoundError:
        return
    if stat.S_ISREG(status.st_mode):
        yield name, _stamp(status)


def _unusable(folder: Path, below: str, error: OSError) -> ConfigError:
    return ConfigError(Fault(str(folder / below), 0, "", f"the folder cannot be read: {error.strerror}"))


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_mtime_ns, status.st_size, status.st_ino)
