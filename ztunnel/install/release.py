"""What Helm is to do: a release of our chart, with the values of a profile and of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

RELEASE: Final = "ztunnel"
NAMESPACE: Final = "ztunnel-system"

PROFILES: Final[Mapping[str, tuple[str, ...]]] = {
    "default": (),
    "istiod": (
        "control.enabled=false",
        "control.xdsAddress=https://istiod.istio-system.svc:15012",
        "control.caAddress=https://istiod.istio-system.svc:15012",
    ),
    "demo": ("control.replicas=1", "control.podDisruptionBudget=false", "node.logLevel=info\\,access=debug"),
}
"""Values of the chart by name: our own control plane; an istiod that is there; small, and talkative."""


@dataclass(frozen=True, slots=True)
class Release:
    """Which release, and how.

    Attributes:
        chart: where the chart is.
        namespace: of the node proxies and control planes; made where it is missing.
        profile: a key of PROFILES.
        values: files of values, the later ones before the earlier.
        sets: single values, `key=value`, before all files.
        timeout_seconds: until everything has to be ready.
    """

    chart: str
    namespace: str = NAMESPACE
    profile: str = "default"
    values: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    timeout_seconds: int = 300

    def installing(self, *, wait: bool = True) -> list[str]:
        """Helm's words to install it, or to bring one that is there to this version and these values."""
        words = ["upgrade", "--install", RELEASE, self.chart, *self._where(), "--create-namespace"]
        if wait:
            words += ["--wait", "--timeout", f"{self.timeout_seconds}s"]
        return words + self._given()

    def rendering(self) -> list[str]:
        """Helm's words to print the manifests, for a cluster or for none."""
        return ["template", RELEASE, self.chart, *self._where(), *self._given()]

    def removing(self) -> list[str]:
        """Helm's words to take it out, and to wait until its pods have gone."""
        wait = ["--wait", "--timeout", f"{self.timeout_seconds}s"]
        return ["uninstall", RELEASE, *self._where(), *wait]

    def _where(self) -> list[str]:
        return ["--namespace", self.namespace]

    def _given(self) -> list[str]:
        words = [word for one in PROFILES[self.profile] for word in ("--set", one)]
        words += [word for one in self.values for word in ("--values", one)]
        return words + [word for one in self.sets for word in ("--set", one)]
