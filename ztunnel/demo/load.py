"""Reads the manifests that a user names: files, directories, kustomizations that only list, and stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ztunnel.demo.kinds import is_read, why_left_out
from ztunnel.demo.kustomization import NAMES as KUSTOMIZATIONS
from ztunnel.demo.kustomization import resources
from ztunnel.demo.manifest import Key, Manifest, decode, parse_some
from ztunnel.demo.workloads import is_workload
from ztunnel.errors import ConfigError, Fault

STDIN: Final = Path("-")
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read: the objects that a laboratory makes something of, and what it leaves out, with why."""

    manifests: tuple[Manifest, ...]
    left_out: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """All objects of what a user names, of kinds that are read or not; `foreign` are documents that are none,
    `faults` what is wrong: a file with faults gives nothing else."""

    manifests: tuple[Manifest, ...] = ()
    foreign: tuple[Fault, ...] = ()
    faults: tuple[Fault, ...] = ()


def load(sources: Sequence[Path]) -> Loaded:
    """All objects of files, of directories (`*.yaml`, `*.yml`, `*.json` in them, not below), of `-`.

    A directory with a kustomization has the files that this lists. A later object replaces an earlier one of
    the same kind and name.

    Raises:
        ConfigError: nothing there, not readable, or not manifests: every fault of every file.
    """
    given = read_given(sources)
    if given.faults:
        raise ConfigError(*given.faults)
    return sort_out(given.manifests, given.foreign)


def read_given(sources: Sequence[Path]) -> Given:
    """As `load`, but what is wrong costs only its own file, and nothing is sorted out."""
    faults: list[Fault] = []
    manifests: list[Manifest] = []
    foreign: list[Fault] = []
    for source in sources:
        try:
            files = _files_of(source)
        except ConfigError as error:
            faults += error.faults
            continue
        for file in files:
            try:
                found, others = parse_some(*_read(file))
            except ConfigError as error:
                faults += error.faults
                continue
            manifests += found
            # Beside manifests there may be anything; a file that is named has to be one.
            if source.is_dir():
                foreign += [replace(each, message=f"not read: {each.message}") for each in others]
            else:
                faults += others
    return Given(tuple(manifests), tuple(foreign), tuple(faults))


def sort_out(manifests: Iterable[Manifest], foreign: Iterable[Fault] = ()) -> Loaded:
    """What is read, the last one of each key; and what is not.

    Pods that stand beside the workload that makes them, as in the output of `kubectl get all -o yaml`, are
    left to it.
    """
    last: dict[Key, Manifest] = {}
    left_out = [*foreign]
    manifests = list(manifests)
    makers = {(one.key.kind, one.key.namespace, one.key.name) for one in manifests if is_workload(one.key)}
    for manifest in manifests:
        key, owner = manifest.key, _owner(manifest)
        if (owner[0], key.namespace, owner[1]) in makers:
            message = f"not read: made of {owner[0]} {owner[1]}"
        elif is_read(key.group, key.kind):
            last[key] = manifest
            continue
        else:
            message = why_left_out(key.kind)
        left_out.append(Fault(manifest.file, manifest.line, str(key), message))
    return Loaded(tuple(last.values()), tuple(left_out))


def _owner(manifest: Manifest) -> tuple[str, str]:
    """Kind and name of what controls the object; empty where nothing does."""
    for owner in manifest.parts("metadata.ownerReferences"):
        if owner.pull("controller", bool, False):
            return owner.pull("kind", str, ""), owner.pull("name", str, "")
    return "", ""


def _files_of(source: Path) -> list[Path]:
    if source == STDIN or not source.is_dir():
        return [source]
    for name in KUSTOMIZATIONS:
        if (source / name).is_file():
            return _listed(source / name)
    if (source / "Chart.yaml").is_file():
        message = f"a Helm chart: render it first, `helm template {source} | ztunnel demo up -`"
        raise ConfigError(Fault(str(source), 0, "", message))
    files = sorted(path for path in source.iterdir() if path.suffix in _SUFFIXES)
    if not files:
        raise ConfigError(Fault(str(source), 0, "", f"no *.yaml in this directory{_hint(source)}"))
    return files


def _listed(kustomization: Path, depth: int = 0) -> list[Path]:
    """The files of a kustomization and of those that it lists. Raises ConfigError."""
    text, name = _read(kustomization)
    found: list[Path] = []
    for resource in resources(text, name):
        path = kustomization.parent / resource
        if not path.is_dir():
            found.append(path)
            continue
        below = [path / each for each in KUSTOMIZATIONS if (path / each).is_file()]
        if not below or depth > 10:
            raise ConfigError(Fault(name, 0, "resources", f"{resource}: no kustomization in this directory"))
        found += _listed(below[0], depth + 1)
    return found


def _read(path: Path) -> tuple[str, str]:
    """The text of a file, and its name. Raises ConfigError."""
    if path == STDIN:
        return decode(sys.stdin.buffer.read(), "<stdin>"), "<stdin>"
    try:
        if path.is_dir():
            raise ConfigError(Fault(str(path), 0, "", "a directory"))
        return decode(path.read_bytes(), str(path)), str(path)
    except OSError as error:
        raise ConfigError(Fault(str(path), 0, "", error.strerror or str(error))) from error


def _hint(source: Path) -> str:
    """Directories below that have manifests, to choose from."""
    near = sorted({path.parent for suffix in _SUFFIXES for path in source.glob(f"*/*{suffix}")})
    return f"; there are some in {', '.join(map(str, near[:8]))}" if near else ""
