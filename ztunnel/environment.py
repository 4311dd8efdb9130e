"""Settings of which the environment has any number: by a prefix of their names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ztunnel.errors import Fault

_HEADER = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")
_META, _META_JSON = "ISTIO_META_", "ISTIO_METAJSON_"


def read_headers(
    environment: Mapping[str, str], prefix: str, faults: list[Fault]
) -> tuple[tuple[str, str], ...]:
    """Metadata for each call to a control plane: `XDS_HEADER_<name>`, `CA_HEADER_<name>`; names in lower
    case.

    A header that HTTP cannot carry, or that belongs to gRPC, is put into `faults`; its value is not shown.
    """
    found = []
    for variable, value in _prefixed(environment, prefix):
        name = variable.removeprefix(prefix).lower()
        if not _HEADER.fullmatch(name) or name.startswith("grpc-"):
            faults.append(Fault("environment", 0, variable, f"{name!r} cannot be the name of metadata"))
        elif not _VALUE.fullmatch(value):
            faults.append(Fault("environment", 0, variable, "metadata has printable ASCII characters only"))
        else:
            found.append((name, value))
    return tuple(found)


def read_metadata(
    environment: Mapping[str, str], proxy_metadata: Mapping[str, str], faults: list[Fault]
) -> tuple[tuple[str, Any], ...]:
    """What a node says of itself to a control plane: every entry of the mesh config's proxyMetadata,
    `ISTIO_META_X` as X, and `ISTIO_METAJSON_X` as the JSON value X (ztunnel src/config.rs)."""
    found: dict[str, Any] = dict(proxy_metadata)
    for variable, value in _prefixed(environment, _META):
        found[variable.removeprefix(_META)] = value
    for variable, value in _prefixed(environment, _META_JSON):
        try:
            found[variable.removeprefix(_META_JSON)] = json.loads(value)
        except (ValueError, RecursionError) as error:
            faults.append(Fault("environment", 0, variable, f"not JSON: {error}"))
    return tuple(found.items())


def _prefixed(environment: Mapping[str, str], prefix: str) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in sorted(environment.items()) if name.startswith(prefix))
