"""What the Kubernetes API server refuses, or why it cannot be asked, in words that name the fix."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ztunnel.kube.resource import Resource

_MOST_TEXT: Final = 300
_MOST_RETRY_SECONDS: Final = 300.0
_TOO_LARGE: Final = "Too large resource version"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked, in RBAC's words. `namespace` is empty where all are meant, or the resource has none."""

    verb: str
    resource: Resource
    namespace: str = ""
    name: str = ""
    below: str = ""

    def __str__(self) -> str:
        what = f"{self.resource}/{self.below}" if self.below else str(self.resource)
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {what}{f' {self.name}' if self.name else ''}{where}"

    @property
    def rule(self) -> str:
        """The permission that it needs."""
        what = f"{self.resource}/{self.below}" if self.below else str(self.resource)
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {what}{where}"


class ApiFailure(Exception):
    """The API server did not do what it was asked.

    Attributes:
        code: the HTTP status; 0 where there was no answer.
        reason: Kubernetes' word for it (NotFound, Conflict, Expired, ...); empty where there was none.
        retry_seconds: when the server wants to be asked again; None where it says nothing.
        rule: the permission that is missing, for a 403 that admission has not given.
    """

    def __init__(
        self,
        message: str,
        code: int = 0,
        reason: str = "",
        retry_seconds: float | None = None,
        rule: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.retry_seconds = retry_seconds
        self.rule = rule

    @property
    def expired(self) -> bool:
        """The version or the continuation that was asked for is not kept any longer."""
        return self.code == 410 or self.reason in ("Expired", "Gone")

    @property
    def ahead(self) -> bool:
        """The server has not come to the version that was asked for, or never had it (a restored etcd)."""
        return self.code == 504 and _TOO_LARGE in str(self)


def refused(request: Request, code: int, body: bytes, headers: Mapping[str, str]) -> ApiFailure:
    """The failure that an answer other than 2xx is. `body` is a Status in JSON, or whatever a proxy wrote."""
    status = _status(body)
    reason, said = str(status.get("reason") or ""), _shorten(str(status.get("message") or ""))
    if not status:
        said = _shorten(body[:_MOST_TEXT].decode(errors="replace"))
    return failure_of(request, code, reason, said, _retry_after(headers, status))


def failure_in_stream(request: Request, status: Mapping[str, Any]) -> ApiFailure:
    """The failure that an ERROR event of a watch is; `status` is its object."""
    code = status.get("code")
    reason, said = str(status.get("reason") or ""), _shorten(str(status.get("message") or ""))
    return failure_of(request, code if isinstance(code, int) else 500, reason, said, _retry_after({}, status))


def failure_of(request: Request, code: int, reason: str, said: str, retry: float | None) -> ApiFailure:
    """In plain words."""
    end = f": {said}" if said else ""
    if code == 403 and _is_of_admission(said):
        return ApiFailure(f"refused by the cluster's admission: {request}{end}", code, reason, retry)
    if code == 403:
        text = f"not allowed to {request}; needs RBAC: {request.rule}{end}"
        return ApiFailure(text, code, reason, retry, request.rule)
    begin = {
        401: f"not known to the API server ({request}): the token or certificate is wrong or has expired",
        404: f"not there: {request}",
        409: f"somebody else changed it: {request}",
        410: f"no longer kept by the API server: {request}",
        429: f"the API server asks for patience ({request})",
    }.get(code, f"the API server answers {code} ({request})")
    return ApiFailure(begin + end, code, reason, retry)


def _is_of_admission(said: str) -> bool:
    """Whether what was asked is permitted, and a quota, a policy or a webhook has refused it (kubernetes
    apiserver pkg/endpoints/handlers/responsewriters: a missing permission begins with the user)."""
    return 'admission webhook "' in said or (
        " is forbidden: " in said and ' is forbidden: User "' not in said
    )


def unanswered(request: Request, server: str, error: Exception) -> ApiFailure:
    """The failure where no answer came: the connection's own words, found below the library's."""
    cause: BaseException = error
    while (below := _below(cause)) is not None:
        cause = below
    said = getattr(cause, "strerror", None) or str(cause) or type(error).__name__
    return ApiFailure(f"no answer from the API server {server} ({request}): {_shorten(said)}")


def _below(error: BaseException) -> BaseException | None:
    if isinstance(error, BaseExceptionGroup):
        return error.exceptions[0]
    return error.__cause__ or error.__context__  # httpcore hides it


def _status(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}


def _retry_after(headers: Mapping[str, str], status: Mapping[str, Any]) -> float | None:
    """Retry-After in seconds (a date is not used by Kubernetes), or `details.retryAfterSeconds`."""
    details = status.get("details")
    said = headers.get("retry-after") or (
        details.get("retryAfterSeconds") if isinstance(details, dict) else None
    )
    text = str(said or "")
    if not text.isascii() or not text.isdigit():
        return None
    return min(float(text[:10]), _MOST_RETRY_SECONDS)


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_TEXT else f"{line[:_MOST_TEXT]}..."
