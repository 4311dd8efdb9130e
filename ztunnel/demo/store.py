"""The objects of a laboratory on disk: those that node proxies watch, and those of which pods are made.

A file that cannot be read (somebody wrote it by hand) is a fault and costs its own objects, not the command.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ztunnel.demo.assign import Objects
from ztunnel.demo.manifest import Key, decode, parse, render
from ztunnel.demo.names import Names
from ztunnel.demo.workloads import is_workload
from ztunnel.errors import ConfigError, Fault

_ORIGIN = re.compile(r"# (.+):(\d+)\n")


@dataclass(frozen=True, slots=True)
class Store:
    """What was read: objects, the files that they stand in, and what is wrong."""

    objects: Objects = field(default_factory=dict)
    files: Mapping[Key, Path] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()


def read_store(names: Names) -> Store:
    """The objects of a laboratory as they stand; none where there is none."""
    objects: Objects = {}
    files: dict[Key, Path] = {}
    faults: list[Fault] = []
    for path in _files(names):
        try:
            text = decode(path.read_bytes(), str(path))
            origin = _ORIGIN.match(text)
            for manifest in parse(text, str(path)):
                file, line = (origin[1], int(origin[2])) if origin else ("", 0)
                objects[manifest.key] = replace(manifest, file=file, line=line)
                files[manifest.key] = path
        except ConfigError as error:
            faults += error.faults
        except FileNotFoundError:
            continue
        except OSError as error:
            faults.append(Fault(str(path), 0, "", f"cannot be read: {error.strerror}"))
    return Store(objects, files, tuple(faults))


def read_objects(names: Names) -> Objects:
    """The objects alone."""
    return read_store(names).objects


def write_objects(names: Names, before: Objects, after: Objects) -> None:
    """Bring the files from `before` to `after`; a watcher sees an object as it was or as it is."""
    for directory in (names.manifests, names.workloads):
        directory.mkdir(parents=True, exist_ok=True)
    for key, manifest in after.items():
        if before.get(key) is not manifest:
            _replace(path_of(names, key), render(manifest))
    remove_files(names, before.keys() - after.keys())


def remove_files(names: Names, keys: Iterable[Key]) -> None:
    """Remove objects, also those of which the file cannot be read, or is shared by several."""
    for key in keys:
        if path_of(names, key).exists():
            path_of(names, key).unlink(missing_ok=True)
            continue
        store = read_store(names)
        shared = store.files.get(key)
        if shared is not None:
            rest = [
                one for other, one in store.objects.items() if other != key and store.files[other] == shared
            ]
            if rest:
                _replace(shared, "---\n".join(render(replace(manifest, file="")) for manifest in rest))
            else:
                shared.unlink(missing_ok=True)


def path_of(names: Names, key: Key) -> Path:
    """The file of an object that the laboratory wrote."""
    return (names.workloads if is_workload(key) else names.manifests) / key.file_name


def _files(names: Names) -> Iterator[Path]:
    for directory in (names.manifests, names.workloads):
        yield from sorted(
            path
            for path in directory.glob("*")
            if path.suffix in (".yaml", ".yml", ".json") and not path.name.startswith(".") and path.is_file()
        )


def _replace(path: Path, text: str) -> None:
    """A watcher that looks in between finds the old file or the new one."""
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(text, encoding="utf-8")
    if path.exists() and path.read_bytes() == fresh.read_bytes():
        fresh.unlink()
    else:
        fresh.rename(path)
