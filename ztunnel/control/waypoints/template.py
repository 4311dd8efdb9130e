"""What is the same of all waypoints of a control plane, as its chart says it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ztunnel.errors import ConfigError, Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What is the same of all waypoints: values of the chart.

    Attributes:
        image: repository and tag; empty for that of the control plane itself.
        control: where control planes serve, `https://...`; `authority`: who signs, the same where empty.
        replicas: where a Gateway does not say (`ztunnel.io/replicas`).
        grace_seconds: from SIGTERM to SIGKILL.
        scraped: whether pods have the annotations of Prometheus.
    """

    control: str
    image: str = ""
    authority: str = ""
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    replicas: int = 1
    grace_seconds: int = 30
    scraped: bool = True
    priority_class: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    pod_annotations: Mapping[str, str] = field(default_factory=dict)
    placement: Mapping[str, Any] = field(default_factory=dict)
    """`nodeSelector`, `tolerations`, `affinity` of the pods."""


_TEXTS: Final = ("image", "control", "authority", "pullPolicy", "priorityClass")
_NUMBERS: Final = ("replicas", "graceSeconds")
_MAPPINGS: Final = ("env", "resources", "podLabels", "podAnnotations", "placement")
_VARIABLE: Final = "ZTUNNEL_WAYPOINT"


def read_template(text: str) -> Template:
    """The template as JSON has it, with its names in camelCase. Raises ConfigError: it makes no sense."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _wrong(f"no JSON: {error}") from error
    if not isinstance(value, dict):
        raise _wrong("it has to be an object")
    found: dict[str, Any] = {}
    for name, one in value.items():
        if not _is_right(name, one):
            raise _wrong(f"{name}: {json.dumps(one)[:200]} is not known here, or of another type")
        found["".join(f"_{each.lower()}" if each.isupper() else each for each in name)] = one
    if not found.get("control"):
        raise _wrong("control is missing")
    found["pull_secrets"] = tuple(found.get("pull_secrets", ()))
    return Template(**found)


def _is_right(name: str, one: object) -> bool:
    if name in _TEXTS:
        return isinstance(one, str)
    if name in _NUMBERS:
        return isinstance(one, int) and not isinstance(one, bool) and one >= 0
    if name in _MAPPINGS:
        return isinstance(one, dict)
    if name == "pullSecrets":
        return isinstance(one, list) and all(isinstance(each, str) for each in one)
    return name == "scraped" and isinstance(one, bool)


def _wrong(text: str) -> ConfigError:
    return ConfigError(Fault("environment", 0, _VARIABLE, text))
