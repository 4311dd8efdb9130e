"""Whether a DaemonSet is to have a pod on a node, by its template's nodeSelector and required node affinity
(Kubernetes, k8s.io/component-helpers scheduling/corev1/nodeaffinity).

Taints are not looked at: they keep pods away for a while. What cannot be read counts as met, as a node that
is wanted loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

Value = Mapping[str, Any]


def is_wanted(daemon_set: Value, node: Value) -> bool:
    """Whether the DaemonSet's pods may be on that node, both as the API server tells them; of the node its
    metadata is enough."""
    spec = _below(daemon_set, "spec", "template", "spec")
    metadata = _below(node, "metadata")
    labels = _below(metadata, "labels")
    if any(labels.get(name) != value for name, value in _below(spec, "nodeSelector").items()):
        return False
    required = _below(spec, "affinity", "nodeAffinity").get("requiredDuringSchedulingIgnoredDuringExecution")
    if not isinstance(required, Mapping):
        return True
    fields = {"metadata.name": metadata.get("name", "")}
    return any(_holds(term, labels, fields) for term in _each(required, "nodeSelectorTerms"))


def _holds(term: Value, labels: Value, fields: Value) -> bool:
    """An empty term selects nothing."""
    expressions, of_fields = _each(term, "matchExpressions"), _each(term, "matchFields")
    if not expressions and not of_fields:
        return False
    return all(_matches(one, labels) for one in expressions) and all(
        _matches(one, fields) for one in of_fields
    )


def _matches(expression: Value, values: Value) -> bool:
    compare = _OPERATORS.get(str(expression.get("operator")))
    key, wanted = str(expression.get("key")), expression.get("values")
    return compare is None or compare(values.get(key), wanted if isinstance(wanted, Sequence) else ())


def _is_more(value: Any, wanted: Sequence[Any]) -> bool:
    return _compares(value, wanted, lambda one, other: one > other)


def _is_less(value: Any, wanted: Sequence[Any]) -> bool:
    return _compares(value, wanted, lambda one, other: one < other)


def _compares(value: Any, wanted: Sequence[Any], compare: Callable[[int, int], bool]) -> bool:
    """Of whole numbers; a label that is none of them does not match."""
    with suppress(ValueError, TypeError):
        return len(wanted) == 1 and compare(int(value), int(wanted[0]))
    return False


_OPERATORS: Final[Mapping[str, Callable[[Any, Sequence[Any]], bool]]] = {
    "In": lambda value, wanted: value in wanted,
    "NotIn": lambda value, wanted: value not in wanted,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
    "Gt": _is_more,
    "Lt": _is_less,
}


def _below(value: Value, *names: str) -> Value:
    for name in names:
        found = value.get(name)
        value = found if isinstance(found, Mapping) else {}
    return value


def _each(value: Value, name: str) -> list[Value]:
    found = value.get(name)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
