"""The mesh config as waypoints have it: providers, and what counts for the whole mesh, kept up to date.

What is wrong with a provider costs only that one, whose last good version stays in force, as does that of
the defaults; where the text as such cannot be read, all of it does. That holds over restarts: what is in
force and not good as it is written now is told (`last_good`) as the texts in which it was, and recalled. Is
the ConfigMap gone, so is what it said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ztunnel.control.delta import Delta, HttpResources
from ztunnel.control.policies.custom_action import CustomPolicies
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key, Object
from ztunnel.errors import Fault
from ztunnel.model.mesh_defaults import MESH, MeshDefaults
from ztunnel.model.provider import ExtensionProvider, Unsupported
from ztunnel.model.traffic import NO_TRAFFIC
from ztunnel.state.config_map import ConfigMap
from ztunnel.state.mesh_config import MeshConfig, read_mesh_config
from ztunnel.xds.resource import MESH_DEFAULTS, PROVIDER

_NOTHING: Final = MeshConfig()
_DEFAULTS: Final = ""
"""In the place of a provider's name: what counts for the whole mesh."""

Texts = Mapping[str, tuple[str, ...]]
"""Texts of mesh configs, and the names of the providers that are good in them."""


class MeshConfigs:
    """The one ConfigMap that counts.

    Attributes:
        providers: those in force, by name.
        defaults, traffic: what counts for the whole mesh; `traffic` where no DestinationRule says anything.
        problem: why a CUSTOM policy's provider is not asked; empty: it is.
        put_policy: a policy of waypoints is now that, or none.
    """

    def __init__(self, settings: MeshSettings, http: HttpResources) -> None:
        """`http` is told what waypoints are sent."""
        namespace, _, name = settings.mesh_config.partition("/")
        self._key = Key(ConfigMap.__name__, namespace, name)
        self._http = http
        self.defaults, self.traffic = MeshDefaults(), NO_TRAFFIC
        self.providers: dict[str, ExtensionProvider] = {}
        self._wrong: list[str] = []
        self._texts: dict[str, str] = {}
        self._faulty: frozenset[str] = frozenset()
        self._recalled: dict[str, ExtensionProvider] = {}
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
        known = {**self._recalled, **self.providers}
        faulty = found.faulty if found.whole else frozenset(known)
        kept = {name: one for name, one in known.items() if name in faulty}
        before, self.providers = self.providers, {**found.providers, **kept}
        self._recalled = {}
        if found.whole and found.defaults is not None:
            self.defaults, self.traffic = found.defaults, found.traffic
            self._texts[_DEFAULTS] = text or ""
        self._texts.update(dict.fromkeys(found.providers, text or ""))
        self._texts = {
            name: one for name, one in self._texts.items() if name in self.providers or name == _DEFAULTS
        }
        self._faulty = frozenset(kept)
        if not found.whole or found.defaults is None:
            self._faulty |= {_DEFAULTS}
        self._wrong = self._said_of(found)
        names = before.keys() | self.providers.keys()
        changed = frozenset(name for name in names if before.get(name) != self.providers.get(name))
        for name in changed:
            self._http.put(PROVIDER, name, self.providers.get(name), delta)
        said = self.defaults if self.defaults != MeshDefaults() else None
        self._http.put(MESH_DEFAULTS, MESH, said, delta)
        return self._custom.provide(self.providers)

    def last_good(self) -> Texts:
        """The texts in which that was good what is in force and not good any more."""
        names: dict[str, tuple[str, ...]] = {}
        for name in sorted(self._faulty):
            if (text := self._texts.get(name)) is not None:
                names[text] = (*names.get(text, ()), name)
        return names

    def recall(self, texts: Iterable[tuple[str, Iterable[str]]]) -> None:
        """Take these, which `last_good` gave to an earlier process, for what is not good as it is first
        written."""
        for text, names in texts:
            found = read_mesh_config(text)
            for name in names:
                if name in found.providers:
                    self._recalled[name], self._texts[name] = found.providers[name], text
                elif name == _DEFAULTS and found.whole and found.defaults is not None:
                    self.defaults, self.traffic, self._texts[name] = found.defaults, found.traffic, text

    def _said_of(self, found: MeshConfig) -> list[str]:
        """Of each fault where it is, and what is in force instead."""
        kept = "its last good version is in force"
        texts = [f"{self._key}: {_place(fault)}: {fault.message}" for fault in found.faults]
        if not found.whole:
            return [f"{text}; {kept}" for text in texts]
        for name in sorted(found.faulty):
            what = kept if name in self.providers else "there is none of that name"
            texts.append(f"{self._key}: data.mesh: provider {name!r} is not taken over: {what}")
        if found.defaults is None:
            texts.append(f"{self._key}: data.mesh: defaults are not taken over: {kept}")
        if found.defaults is not None and found.defaults.path_normalization == "NONE":
            texts.append(
                f"{self._key}: data.mesh: pathNormalization.normalization: NONE is not done: paths are "
                "judged and sent on in one spelling, as by BASE"
            )
        if found.unread:
            names = ", ".join(found.unread)
            texts.append(f"{self._key}: data.mesh: nothing is done with {names}")
        for name, one in sorted(found.providers.items()):
            if isinstance(one.what, Unsupported):
                texts.append(
                    f"{self._key}: data.mesh: provider {name!r}: nothing is done with {one.what.kind}"
                )
        return texts


def _place(fault: Fault) -> str:
    where = f"data.mesh, line {fault.line}"
    return f"{where}: {fault.field}" if fault.field else where
