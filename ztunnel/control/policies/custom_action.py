"""What keeps CUSTOM policies from having their provider asked: what they match is refused then, and the
operator is to know (as istiod: "extension provider not found", "multiple different providers")."""

from __future__ import annotations

from collections.abc import Mapping

from ztunnel.control.source.document import Key
from ztunnel.model.http_policy import HttpAction, HttpPolicy
from ztunnel.model.provider import ExtAuthz, ExtensionProvider, Unsupported


class CustomPolicies:
    """Those of all waypoints."""

    def __init__(self, providers: Mapping[str, ExtensionProvider] | None = None) -> None:
        self._policies: dict[Key, HttpPolicy] = {}
        self._providers: Mapping[str, ExtensionProvider] = providers or {}

    def put(self, key: Key, new: HttpPolicy | None) -> None:
        """The policy of that key is now `new`."""
        self._policies.pop(key, None)
        if new is not None and new.action is HttpAction.CUSTOM:
            self._policies[key] = new

    def provide(self, providers: Mapping[str, ExtensionProvider]) -> frozenset[Key]:
        """These are the providers now; the policies that this concerns."""
        before, self._providers = self._providers, providers
        return frozenset(
            key
            for key, one in self._policies.items()
            if before.get(one.provider) != providers.get(one.provider)
        )

    def problem(self, key: Key) -> str:
        """Of a policy; empty: there is none."""
        one = self._policies.get(key)
        if one is None:
            return ""
        found = self._providers.get(one.provider)
        if found is not None and isinstance(found.what, ExtAuthz):
            return ""
        if found is None:
            names = ", ".join(sorted(self._authorizers())) or "none"
            why = f"there is no provider {one.provider!r} in the mesh config (authorizers: {names})"
        else:
            kind = found.what.kind if isinstance(found.what, Unsupported) else type(found.what).__name__
            why = f"the provider {one.provider!r} is no authorizer: {kind}"
        return f"{why}: what the policy matches is refused"

    def texts(self) -> list[str]:
        """Of all that have one, a line each."""
        found = ((key, self.problem(key)) for key in sorted(self._policies))
        return [f"{key}: {text}" for key, text in found if text]

    def _authorizers(self) -> list[str]:
        return [name for name, one in self._providers.items() if isinstance(one.what, ExtAuthz)]
