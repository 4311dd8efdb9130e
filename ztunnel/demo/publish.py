"""Reads and writes a laboratory's files: objects, which the node proxies watch, and `/etc/hosts` of pods."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from ztunnel.demo.manifest import Manifest, parse, parse_all, render
from ztunnel.demo.names import RUN, Names
from ztunnel.demo.schedule import Objects
from ztunnel.errors import ConfigError, Fault

_ORIGIN = re.compile(r"# (.+):(\d+)")
_RESOLV_CONF = "# No name server: the names of services stand in /etc/hosts.\n"


@contextmanager
def locked(names: Names) -> Iterator[None]:
    """One command at a time changes a laboratory; a second one waits here."""
    with _lock(names):
        yield


def _lock(names: Names) -> IO[str]:
    """Holds until it is closed. `down` removes the file: whoever waited asks again, for the next one."""
    while True:
        RUN.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            lock = names.lock.open("w")
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _inode(names.lock) == os.fstat(lock.fileno()).st_ino:
                return lock
            lock.close()


def load(sources: Sequence[Path]) -> tuple[Manifest, ...]:
    """All objects of files and directories (`*.yaml`, `*.yml`, `*.json` in them, not below).

    Raises:
        ConfigError: nothing there, not readable, or not manifests: every fault of every file.
    """
    faults: list[Fault] = []
    texts: list[tuple[str, str]] = []
    for source in sources:
        files = sorted(path for path in source.glob("*") if path.suffix in (".yaml", ".yml", ".json"))
        if source.is_dir() and not files:
            faults.append(Fault(str(source), 0, "", "no *.yaml in this directory"))
        for path in files if source.is_dir() else [source]:
            try:
                texts.append((str(path), path.read_text(encoding="utf-8")))
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
                faults.append(Fault(str(path), 0, "", reason or str(error)))
    if faults:
        raise ConfigError(*faults)
    return parse_all(texts)


def read_objects(names: Names) -> Objects:
    """The objects of a laboratory as they were last written; empty where there is none."""
    objects: Objects = {}
    for path in sorted(names.manifests.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        origin = _ORIGIN.match(text)
        for manifest in parse(text, str(path)):
            file, line = (origin[1], int(origin[2])) if origin else ("", 0)
            objects[manifest.key] = replace(manifest, file=file, line=line)
    return objects


def write_objects(names: Names, before: Objects, after: Objects) -> None:
    """Bring the directory from `before` to `after`; a watcher sees an object as it was or as it is."""
    names.manifests.mkdir(parents=True, exist_ok=True)
    for key, manifest in after.items():
        if before.get(key) is not manifest:
            _replace(names.manifests / key.file_name, render(manifest))
    for key in before.keys() - after.keys():
        (names.manifests / key.file_name).unlink(missing_ok=True)


def write_hosts(names: Names, hosts: Iterable[tuple[str, str]]) -> None:
    """The files that pods see as /etc/hosts and /etc/resolv.conf; (namespace, text) pairs.

    They are written in place: a mount holds on to the file, not to its name.
    """
    names.hosts("x").parent.mkdir(parents=True, exist_ok=True)
    for path, text in (
        (names.resolv_conf, _RESOLV_CONF),
        *((names.hosts(namespace), text) for namespace, text in hosts),
    ):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(fd, os.pwrite(fd, text.encode(), 0))
        finally:
            os.close(fd)


def _inode(path: Path) -> int:
    return path.stat().st_ino if path.exists() else 0


def _replace(path: Path, text: str) -> None:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(text, encoding="utf-8")
    fresh.rename(path)
