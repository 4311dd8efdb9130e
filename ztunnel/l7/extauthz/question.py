"""What an authorizer is asked about a request, and over HTTP how, and what it says there (Envoy's ext_authz
filter: check_request_utils.cc, ext_authz_http_impl.cc)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ztunnel.http1.head import Fields
from ztunnel.l7.extauthz.outcome import Answer, Denial, Failed, HeaderChange, How, Permit, checked
from ztunnel.l7.request import Request
from ztunnel.model.address import Endpoint
from ztunnel.model.http_policy import TextKind, TextMatch
from ztunnel.model.provider import ExtAuthz

PARTIAL: Final = b"x-envoy-auth-partial-body"
FAILURE_ALLOWED: Final = b"x-envoy-auth-failure-mode-allowed"
_REMOVE: Final = b"x-envoy-auth-headers-to-remove"
_ALWAYS: Final = (TextMatch(TextKind.EXACT, "authorization"),)
_TO_CLIENT: Final = tuple(TextMatch(TextKind.EXACT, each) for each in ("www-authenticate", "location"))
_NEVER: Final = frozenset(
    b"connection keep-alive proxy-connection transfer-encoding te trailer upgrade content-length "
    b"expect".split()
)
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Party:
    """One end of the connection: where it is, and who."""

    endpoint: Endpoint
    principal: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about.

    Attributes:
        request: see above; None: a connection that is no HTTP.
        version: of HTTP, that the client speaks.
        time_ns: when it came, since the epoch.
        body: what of its body is shown; None: nothing is. `partial`: there is more of it.
    """

    source: Party
    destination: Party
    request: Request | None = None
    version: int = 1
    time_ns: int = 0
    body: bytes | None = None
    partial: bool = False


def matches(name: bytes, among: Iterable[TextMatch]) -> bool:
    """Whether a header is meant; names are compared in small letters."""
    text = name.decode("latin-1")
    return any(_match(text, each) for each in among)


def _match(text: str, match: TextMatch) -> bool:
    if match.kind is TextKind.EXACT:
        return text == match.text
    if match.kind is TextKind.PREFIX:
        return text.startswith(match.text)
    return match.kind is TextKind.SUFFIX and text.endswith(match.text)


def joined(fields: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by their names, the values of one joined by commas; without what a client says in our name."""
    found: dict[bytes, bytes] = {}
    for name, value in fields:
        if name != PARTIAL:
            found[name] = found[name] + b"," + value if name in found else value
    return found


def http_request(provider: ExtAuthz, question: Question) -> Request:
    """The request to the authorizer: method, path, host and `authorization` of the one that is asked about,
    and what its provider adds. Its body is `question.body`."""
    request = question.request
    assert request is not None
    wanted = (*_ALWAYS, *provider.include_headers)
    fields = [
        (name, value)
        for name, value in joined(request.fields).items()
        if name not in _NEVER and matches(name, wanted)
    ]
    if question.body is not None:
        fields.append((PARTIAL, b"true" if question.partial else b"false"))
    for added, text in provider.added_headers:
        fields.append((added.encode(), text.encode()))
    length = len(question.body or b"")
    fields.append((b"content-length", b"%d" % length))
    path = provider.path_prefix.encode() + request.path
    made = Request(request.method, request.authority, path, fields)
    made.length = length
    return made


def http_answer(provider: ExtAuthz, fields: Fields, body: bytes) -> Answer:
    """What a response says, of which `:status` is the first field: 200 lets the request go on, one of 500 and
    more is an error, any other goes to the client."""
    status, said = int(fields[0][1]), fields[1:]
    if status >= 500:
        return Failed(f"the authorizer answered {status}")
    if status != _OK:
        among = (*provider.downstream_on_deny, *_TO_CLIENT) if provider.downstream_on_deny else None
        kept = tuple(field for field in said if among is None or matches(field[0], among))
        return checked(Denial(status, kept, body))
    removed = [each for name, value in said if name == _REMOVE for each in value.lower().split(b",")]
    return checked(
        Permit(
            tuple(HeaderChange(*field) for field in said if matches(field[0], provider.upstream_on_allow)),
            tuple(name for each in removed if (name := each.strip())),
            tuple(
                HeaderChange(name, value, How.APPEND)
                for name, value in said
                if matches(name, provider.downstream_on_allow)
            ),
        )
    )
