"""What a proved token says, as policies ask for it: principal, audiences, claims.

As Istio's waypoint has it: `requestPrincipals` is `iss/sub`, a condition on a claim is met by a string or by
any string of a list, and `scope` and `permission` are lists with spaces between their members (Envoy's
NormalizePayload). Numbers and booleans meet no condition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

SPACE_DELIMITED: Final = ("scope", "permission")


class Claims:
    """The claims of one token, or of none: then all is empty.

    Attributes:
        principal: `iss/sub`; empty where either is missing.
        audiences: of `aud`.
        presenter: `azp`.
    """

    __slots__ = ("_payload", "_split", "audiences", "presenter", "principal")

    def __init__(self, payload: Mapping[str, Any], space_delimited: Iterable[str] = ()) -> None:
        """`payload` is proved; `space_delimited` are lists beside the usual ones."""
        self._payload = payload
        self._split = (*SPACE_DELIMITED, *space_delimited)
        issuer, subject = _text(payload.get("iss")), _text(payload.get("sub"))
        self.principal = f"{issuer}/{subject}" if issuer and subject else ""
        self.audiences = texts_of(payload.get("aud"))
        self.presenter = _text(payload.get("azp"))

    def __bool__(self) -> bool:
        """Whether there is a token."""
        return bool(self._payload)

    def find(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """The texts at `path`, one name for each level (`claims[a][b]`): of a string itself, of a list its
        strings; none where there is no such claim, or one of another type."""
        found: Any = self._payload
        for name in path:
            if not isinstance(found, dict):
                return ()
            found = found.get(name)
        if isinstance(found, str) and len(path) == 1 and path[0] in self._split:
            return tuple(each for each in found.split(" ") if each)
        return texts_of(found)


def texts_of(value: Any) -> tuple[str, ...]:
    """A string, or the strings of a list."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        return tuple(each for each in value if isinstance(each, str))
    return ()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


NOBODY: Final = Claims({})
"""Of a request without a token."""
