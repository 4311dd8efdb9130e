"""Kubernetes manifests as the laboratory reads them: documents with a kind and a name, and where they stood.

The laboratory looks only at what a scheduler, a kubelet and an address allocator have to know. Whether an
object is right in every field that node proxies read is for their reader to say (`review`), before anything
is made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import yaml

from ztunnel.demo.kinds import Standing, standing
from ztunnel.demo.review import review
from ztunnel.demo.tree import child, items, line_of, text_of, too_much
from ztunnel.errors import ConfigError, Fault
from ztunnel.state.manifest import Chunk, Notes, compose, cut

Body = dict[str, Any]
_T = TypeVar("_T")

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
_LOOSE_NAME = re.compile(r"[A-Za-z0-9][^/\s]{0,149}")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ONCE_PER_CLUSTER = frozenset(
    """Namespace Node PersistentVolume StorageClass ClusterRole ClusterRoleBinding CustomResourceDefinition
    GatewayClass PriorityClass""".split()  # noqa: SIM905
)
_STRICT = frozenset(("Namespace", "Node", "Service"))
_BOM = re.compile("^\ufeff", re.MULTILINE)
_TEMPLATE = re.compile(
    r"\{\{-?\s*(\.|\$|/\*|(include|template|define|block|range|with|if|toYaml) |else|end\b)"
)
_NO_OBJECT = "no Kubernetes object: it has neither apiVersion nor kind"
_RENDER_FIRST = "a Helm template: render it first, `helm template CHART | ztunnel demo up -`"


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
        ConfigError: with all that is wrong in it, be it YAML, a kind, or a field that node proxies read.
    """
    manifests, foreign = parse_some(text, file)
    if foreign:
        raise ConfigError(*foreign)
    return manifests


def decode(content: bytes, file: str) -> str:
    """The text of a file. Raises ConfigError: not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(Fault(file, line, "", "not UTF-8")) from error


def parse_some(text: str, file: str) -> tuple[tuple[Manifest, ...], tuple[Fault, ...]]:
    """As `parse`, but documents that are no objects of a cluster are no error: they are returned beside.

    So a folder may hold the settings of other programs.
    """
    manifests: list[Manifest] = []
    foreign: list[Fault] = []
    faults: list[Fault] = []
    for chunk in cut(_BOM.sub("", text)):
        try:
            root, document = _construct(chunk, file)
            if root is None:
                continue
            if reason := _is_foreign(root):
                foreign.append(Fault(file, line_of(root) + chunk.line - 1, "", reason))
                continue
            if found := review(chunk, root, file):
                raise ConfigError(*found)
            manifests += _objects(chunk, root, document, file)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(*(_as_template(text, file) or faults))
    return tuple(manifests), tuple(foreign)


def render(manifest: Manifest) -> str:
    """One YAML document, as it was written if that still holds, below a comment on where it came from."""
    origin = f"# {manifest.file}:{manifest.line}\n" if manifest.file else ""
    return origin + (manifest.text or yaml.dump(manifest.body, Dumper=_Dumper, sort_keys=False))


def _construct(chunk: Chunk, file: str) -> tuple[yaml.Node | None, object]:
    """A document as nodes and as values; None where there is nothing. Raises ConfigError."""
    notes = Notes()
    compose(chunk.text, notes)
    if notes.faults:
        raise ConfigError(
            *(replace(fault, file=file, line=fault.line + chunk.line - 1) for fault in notes.faults)
        )
    loader = yaml.CSafeLoader(chunk.text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, None
        if reason := too_much(root):
            raise ConfigError(Fault(file, chunk.line, "", reason))
        document = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        raise ConfigError(Fault(file, chunk.line + line, "", f"not YAML: {error.problem}")) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none
        raise ConfigError(Fault(file, chunk.line, "", f"not YAML: {error}")) from error
    finally:
        loader.dispose()
    return (None, None) if document is None else (root, document)


def _is_foreign(root: yaml.Node) -> str:
    """Why a document is no object of a cluster; empty where it is one, or is meant to be."""
    version, kind = child(root, "apiVersion"), child(root, "kind")
    if version is None and kind is None:
        return _NO_OBJECT
    left_out = standing(text_of(version), text_of(kind)) is Standing.LEFT_OUT
    if left_out and child(root, "metadata", "name") is None and child(root, "items") is None:
        return f"no Kubernetes object: {text_of(kind)} of {text_of(version)} without a name"
    return ""


def _objects(chunk: Chunk, root: yaml.Node, document: object, file: str) -> list[Manifest]:
    """The objects of a document that was reviewed. Raises ConfigError."""
    found: list[Manifest] = []
    faults: list[Fault] = []
    bodies = _bodies(document)
    for item, body in zip(items(root), bodies, strict=True):
        if isinstance(body, dict) and not body.keys() & {"apiVersion", "kind"}:
            body = {"apiVersion": item.version, "kind": item.kind, **body}
        made = _object(body, file, chunk.line - 1 + line_of(item.node))
        if isinstance(made, Fault):
            faults.append(made)
        else:
            found.append(replace(made, text=_source(chunk.text, root)) if body is document else made)
    if faults:
        raise ConfigError(*faults)
    return found


def _as_template(text: str, file: str) -> list[Fault]:
    """One fault instead of many where the text is a template and no manifest yet."""
    found = _TEMPLATE.search(text)
    if found is None:
        return []
    return [Fault(file, text.count("\n", 0, found.start()) + 1, "", _RENDER_FIRST)]


class _Dumper(yaml.CSafeDumper):
    """Writes what two places share twice: an anchor would only puzzle a reader."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def _bodies(document: object) -> list[object]:
    if isinstance(document, dict) and str(document.get("kind", "")).endswith("List"):
        items = document.get("items")
        if isinstance(items, list):
            return list(items)
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
