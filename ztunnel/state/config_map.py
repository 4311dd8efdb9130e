"""A ConfigMap, of which only the mesh config is kept: the text under `mesh` in `data`, where Istio has it."""

from __future__ import annotations

from dataclasses import dataclass

from ztunnel.state.field import Field
from ztunnel.state.meta import Meta, read_meta


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """`mesh`: the text of a MeshConfig; None where there is none."""

    meta: Meta
    mesh: str | None = None


def read_config_map(root: Field) -> ConfigMap:
    """Core ConfigMap; what it holds of others is not looked at."""
    meta, data = read_meta(root), root.sub("data")
    mesh = data.sub("mesh") if data is not None else None
    return ConfigMap(meta, mesh.as_text() if mesh is not None else None)
