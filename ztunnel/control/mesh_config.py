"""The mesh config as waypoints have it: providers, and what counts for the whole mesh, kept up to date.

What is wrong with a provider costs only that one, whose last good version stays in force, as does that of
the defaults; where the text as such cannot be read, all of it does. Is the ConfigMap gone, so is what it
said."""

from __future__ import annotations

from typing import Final

from ztunnel.control.delta import Delta, HttpResources
from ztunnel.control.policies.custom_action import CustomPolicies
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key, Object
from ztunnel.errors import Fault
from ztunnel.model.mesh_defaults import MESH, MeshDefaults
from ztunnel.model.provider import ExtensionProvider, Unsupported
from ztunnel.state.config_map import ConfigMap
from ztunnel.state.mesh_config import MeshConfig, read_mesh_config
from ztunnel.xds.resource import MESH_DEFAULTS, PROVIDER

_NOTHING: Final = MeshConfig()


class MeshConfigs:
    """The one ConfigMap that counts.

    Attributes:
        providers: those in force, by name.
        problem: why a CUSTOM policy's provider is not asked; empty: it is.
        put_policy: a policy of waypoints is now that, or none.
    """

    def __init__(self, settings: MeshSettings, http: HttpResources) -> None:
        """`http` is told what waypoints are sent."""
        namespace, _, name = settings.mesh_config.partition("/")
        self._key = Key(ConfigMap.__name__, namespace, name)
        self._http = http
        self._defaults = MeshDefaults()
        self.providers: dict[str, ExtensionProvider] = {}
        self._wrong: list[str] = []
        self._custom = CustomPolicies()
        self.problem, self.put_policy = self._custom.problem, self._custom.put

    def texts(self) -> list[str]:
        """What is wrong, a line each."""
        return [*self._wrong, *self._custom.texts()]

    def put(self, key: Key, new: Object | None, delta: Delta) -> frozenset[Key]:
        """The object of that key is now `new`; the CUSTOM policies whose provider is another one now."""
        if key != self._key:
            return frozenset()
        text = new.mesh if isinstance(new, ConfigMap) else None
        found = read_mesh_config(text) if text is not None else _NOTHING
        self._wrong = self._texts(found)
        if not found.whole:
            return frozenset()
        kept = {name: one for name, one in self.providers.items() if name in found.faulty}
        before, self.providers = self.providers, {**found.providers, **kept}
        if found.defaults is not None:
            self._defaults = found.defaults
        names = before.keys() | self.providers.keys()
        changed = frozenset(name for name in names if before.get(name) != self.providers.get(name))
        for name in changed:
            self._http.put(PROVIDER, name, self.providers.get(name), delta)
        said = self._defaults if self._defaults != MeshDefaults() else None
        self._http.put(MESH_DEFAULTS, MESH, said, delta)
        return self._custom.provide(self.providers)

    def _texts(self, found: MeshConfig) -> list[str]:
        """Of each fault where it is, and what is in force instead."""
        kept = "its last good version is in force"
        texts = [f"{self._key}: {_place(fault)}: {fault.message}" for fault in found.faults]
        if not found.whole:
            return [f"{text}; {kept}" for text in texts]
        for name in sorted(found.faulty):
            what = kept if name in self.providers else "there is none of that name"
            texts.append(f"{self._key}: data.mesh: provider {name!r} is not taken over: {what}")
        if found.defaults is None:
            texts.append(f"{self._key}: data.mesh: defaults of telemetry are not taken over: {kept}")
        for name, one in sorted(found.providers.items()):
            if isinstance(one.what, Unsupported):
                texts.append(
                    f"{self._key}: data.mesh: provider {name!r}: nothing is done with {one.what.kind}"
                )
        return texts


def _place(fault: Fault) -> str:
    where = f"data.mesh, line {fault.line}"
    return f"{where}: {fault.field}" if fault.field else where
