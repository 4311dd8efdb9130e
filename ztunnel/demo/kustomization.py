"""Kustomizations that only list resources are read as that list; one that changes them has to be rendered."""

from __future__ import annotations

from typing import Final

import yaml

from ztunnel.demo.tree import child, line_of
from ztunnel.errors import ConfigError, Fault
from ztunnel.state.manifest import Notes, compose

NAMES: Final = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_READ = ("apiVersion", "kind", "metadata", "resources", "bases")
_RENDER = "changes what it lists: render it first, `kubectl kustomize DIRECTORY | ztunnel demo up -`"


def resources(text: str, file: str) -> list[str]:
    """The paths that a kustomization lists, relative to it.

    Raises:
        ConfigError: it is no YAML, changes what it lists, or lists what is not on this machine.
    """
    notes = Notes()
    compose(text, notes)
    if notes.faults:
        raise ConfigError(*(Fault(file, fault.line, fault.field, fault.message) for fault in notes.faults))
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(Fault(file, 1, "", "no kustomization: not a mapping"))
    faults = [
        Fault(file, line_of(key), str(key.value), _RENDER)
        for key, value in root.value
        if key.value not in _READ and value.value not in ("", [])
    ]
    found: list[str] = []
    for name in ("resources", "bases"):
        listed = child(root, name)
        for entry in listed.value if isinstance(listed, yaml.SequenceNode) else []:
            path = str(entry.value) if isinstance(entry, yaml.ScalarNode) else ""
            if not path or "://" in path or path.startswith("github.com/"):
                faults.append(Fault(file, line_of(entry), name, "not a path on this machine"))
            found.append(path)
    if faults:
        raise ConfigError(*faults)
    return found
