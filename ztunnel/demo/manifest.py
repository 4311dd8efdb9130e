"""Kubernetes manifests as the laboratory reads them: documents with a kind and a name, and where they stood.

The laboratory looks only at what a scheduler, a kubelet and an address allocator have to know. What objects
mean to the mesh, and whether they are right in every field, is for the control plane to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import yaml

from ztunnel.errors import ConfigError, Fault

Body = dict[str, Any]
_T = TypeVar("_T")

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
_LOOSE_NAME = re.compile(r"[A-Za-z0-9][^/\s]{0,149}")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ONCE_PER_CLUSTER = frozenset(
    """Namespace Node PersistentVolume StorageClass ClusterRole ClusterRoleBinding CustomResourceDefinition
    GatewayClass PriorityClass""".split()  # noqa: SIM905
)
_Loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader  # ten times as fast
_STRICT = frozenset(("Namespace", "Node", "Pod", "Service"))


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What makes an object the same in two texts. `namespace` is empty where a kind has none."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @property
    def file_name(self) -> str:
        """A name of a file that no other object has."""
        kind = f"{self.kind}.{self.group}" if self.group else self.kind
        return "_".join(part for part in (kind.lower(), self.namespace, self.name) if part) + ".yaml"


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object. `file` and `line` are where it began, `text` what stood there if that is the body."""

    key: Key
    body: Body
    file: str = ""
    line: int = 0
    text: str = ""

    def pull(self, path: str, kind: type[_T], default: _T) -> _T:
        """The value at a dotted path, `default` where it or a parent is missing or null.

        Raises:
            ConfigError: it is there and not of `kind`.
        """
        return Part(self, "", self.body).pull(path, kind, default)

    def parts(self, path: str) -> tuple[Part, ...]:
        """The entries of the list at a dotted path. Raises ConfigError: it is there and no list."""
        return Part(self, "", self.body).parts(path)

    def fault(self, field: str, message: str) -> ConfigError:
        """An error that points here."""
        return ConfigError(Fault(self.file, self.line, f"{self.key}: {field}", message))

    def with_body(self, body: Body) -> Manifest:
        """The same object with another content."""
        return replace(self, body=body, text="")


@dataclass(frozen=True, slots=True)
class Part:
    """A value inside a manifest and the path to it, as in `spec.ports[0]`."""

    within: Manifest
    at: str
    value: Any

    def pull(self, path: str, kind: type[_T], default: _T) -> _T:
        """As `Manifest.pull`, with a path that begins here."""
        value, at = self.value, self.at
        for step in path.split("."):
            if value is None:
                return default
            if not isinstance(value, Mapping):
                raise self.within.fault(at, f"expected a mapping, found {type(value).__name__}")
            value, at = value.get(step), f"{at}.{step}" if at else step
        if value is None:
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.within.fault(at, f"expected {kind.__name__}, found {type(value).__name__}")
        return value

    def parts(self, path: str) -> tuple[Part, ...]:
        """As `Manifest.parts`, with a path that begins here."""
        at = f"{self.at}.{path}" if self.at else path
        entries = enumerate(self.pull(path, list, []))
        return tuple(Part(self.within, f"{at}[{number}]", entry) for number, entry in entries)


def parse(text: str, file: str) -> tuple[Manifest, ...]:
    """All objects of a text of YAML documents; a `List` counts as its items. Empty documents are skipped.

    Raises:
        ConfigError: a syntax error (the rest cannot be read then), or all documents that are no objects.
    """
    manifests: list[Manifest] = []
    faults: list[Fault] = []
    try:
        for node, document in _documents(text):
            for body in _items(document):
                found = _object(body, file, node.start_mark.line + 1)
                if isinstance(found, Fault):
                    faults.append(found)
                else:
                    manifests.append(replace(found, text=_source(text, node)) if body is document else found)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = min(mark.line, text.count("\n")) + 1 if mark else 0  # the end counts as a line of its own
        faults.append(Fault(file, line, "", f"not YAML: {error.problem}"))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none
        faults.append(Fault(file, 0, "", f"not YAML: {error}"))
    if faults:
        raise ConfigError(*faults)
    return tuple(manifests)


def render(manifest: Manifest) -> str:
    """One YAML document, as it was written if that still holds, below a comment on where it came from."""
    origin = f"# {manifest.file}:{manifest.line}\n" if manifest.file else ""
    return origin + (manifest.text or yaml.dump(manifest.body, Dumper=_Dumper, sort_keys=False))


def parse_all(texts: Iterable[tuple[str, str]]) -> tuple[Manifest, ...]:
    """All objects of (file, text) pairs; a later object replaces an earlier one of the same key.

    Raises:
        ConfigError: with the faults of every text.
    """
    faults: list[Fault] = []
    manifests: dict[Key, Manifest] = {}
    for file, text in texts:
        try:
            manifests.update((manifest.key, manifest) for manifest in parse(text, file))
        except ConfigError as error:
            faults.extend(error.faults)
    if faults:
        raise ConfigError(*faults)
    return tuple(manifests.values())


def _documents(text: str) -> Iterator[tuple[yaml.Node, object]]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None, "check_node() said so"
            yield node, loader.construct_document(node)
    finally:
        loader.dispose()


class _Dumper(yaml.SafeDumper):
    """Writes what two places share twice: an anchor would only puzzle a reader."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def _items(document: object) -> list[object]:
    if document is None:
        return []
    if isinstance(document, dict) and str(document.get("kind", "")).endswith("List") and "items" in document:
        items = document["items"]
        return list(items) if isinstance(items, list) else [items]
    return [document]


def _object(body: object, file: str, line: int) -> Manifest | Fault:
    if not isinstance(body, dict):
        return Fault(
            file,
            line,
            "",
            f"expected a mapping with apiVersion, kind and metadata, found {type(body).__name__}",
        )
    metadata = body.get("metadata")
    for field, value in (("apiVersion", body.get("apiVersion")), ("kind", body.get("kind"))):
        if not isinstance(value, str) or not value:
            return Fault(file, line, field, "missing, or not a string")
    if not isinstance(metadata, dict):
        return Fault(file, line, "metadata", "missing, or not a mapping")
    name, namespace = metadata.get("name"), metadata.get("namespace", "default")
    strict = body["kind"] in _STRICT
    if not isinstance(name, str) or not (_NAME if strict else _LOOSE_NAME).fullmatch(name):
        wanted = "a name of at most 63 of a-z, 0-9, '-' and '.'" if strict else "a name"
        return Fault(file, line, "metadata.name", f"not {wanted}: {name!r}")
    if not isinstance(namespace, str) or not _LABEL.fullmatch(namespace):
        return Fault(
            file, line, "metadata.namespace", f"not a name of at most 63 of a-z, 0-9 and '-': {namespace!r}"
        )
    kind, group = body["kind"], body["apiVersion"].rpartition("/")[0]
    return Manifest(Key(group, kind, "" if kind in _ONCE_PER_CLUSTER else namespace, name), body, file, line)


def _source(text: str, node: yaml.Node) -> str:
    """The lines of a document; none if the first is indented or begins with `---`."""
    if node.start_mark.column:
        return ""
    return text[node.start_mark.index : node.end_mark.index].rstrip("\n") + "\n"
