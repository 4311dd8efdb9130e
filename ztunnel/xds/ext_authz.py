"""Questions to authorizers over gRPC and their answers: envoy.service.auth.v3, as Envoy's ext_authz filters
fill it in (check_request_utils.cc, ext_authz_grpc_impl.cc)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from google.protobuf.message import DecodeError

from ztunnel.l7.extauthz.outcome import DENIED, Answer, Denial, Failed, HeaderChange, How, Permit, checked
from ztunnel.l7.extauthz.question import PARTIAL, Party, Question, joined
from ztunnel.xds.pb import ext_authz_pb2 as pb

PATH: Final = "/envoy.service.auth.v3.Authorization/Check"
_HOWS: Final = (How.APPEND, How.ADD_IF_ABSENT, How.SET, How.SET_IF_PRESENT)
_VERSIONS: Final = {1: "HTTP/1.1", 2: "HTTP/2"}


def render_check(question: Question, as_bytes: bool = False) -> bytes:
    """The CheckRequest. `as_bytes`: the body is told as it is, and not as text."""
    made = pb.CheckRequest()
    attributes = made.attributes
    _render_party(question.source, attributes.source)
    _render_party(question.destination, attributes.destination)
    at = attributes.request.time
    at.seconds, at.nanos = divmod(question.time_ns, 1_000_000_000)
    if question.request is not None:
        _render_request(question, attributes.request.http, as_bytes)
    return made.SerializeToString()


def _render_party(party: Party, made: pb.Peer) -> None:
    address = made.address.socket_address
    address.address, address.port_value = str(party.endpoint.ip), party.endpoint.port
    made.principal = party.principal


def _render_request(question: Question, made: pb.HttpRequest, as_bytes: bool) -> None:
    """All headers, pseudo-header fields among them; several of one name are one, with commas."""
    request = question.request
    assert request is not None
    made.id = _text(request.get(b"x-request-id"))
    made.method, made.path = _text(request.method), _text(request.path)
    made.host, made.scheme = _text(request.authority), _text(request.scheme)
    made.size = request.length
    made.protocol = _VERSIONS.get(question.version, "")
    for name, value in joined(request.as_fields()).items():
        made.headers[_text(name)] = _text(value)
    if question.body is not None:
        made.headers[PARTIAL.decode()] = "true" if question.partial else "false"
        if as_bytes:
            made.raw_body = question.body
        else:
            made.body = _text(question.body)


def parse_answer(untrusted: bytes) -> Answer:
    """What a CheckResponse says; what makes no sense is an error."""
    try:
        found = pb.CheckResponse.FromString(untrusted)
    except DecodeError:
        return Failed("the authorizer's answer is no CheckResponse")
    kind = found.WhichOneof("http_response")
    if found.status.code and kind == "error_response":
        return checked(Failed("the authorizer says that it failed", _denial(found.error_response, 0)))
    if found.status.code:
        denied = found.denied_response if kind == "denied_response" else pb.DeniedHttpResponse()
        return checked(_denial(denied, DENIED))
    ok = found.ok_response
    return checked(
        Permit(
            tuple(_changes(ok.headers, How.SET)),
            tuple(name.lower().encode() for name in ok.headers_to_remove),
            tuple(_changes(ok.response_headers_to_add, How.APPEND)),
            tuple((one.key, one.value) for one in ok.query_parameters_to_set),
            tuple(ok.query_parameters_to_remove),
        )
    )


def _denial(denied: pb.DeniedHttpResponse, otherwise: int) -> Denial:
    fields = tuple((change.name, change.value) for change in _changes(denied.headers, How.APPEND))
    return Denial(denied.status.code or otherwise, fields, denied.body.encode())


def _changes(options: Iterable[pb.HeaderValueOption], silent: How) -> Iterable[HeaderChange]:
    """`append`, where it is said, counts before `append_action`; `silent`: where nothing is said. Of a
    request that is SET, as Envoy's API says: appended, what a client claims in that header would stay beside
    what the authorizer has found out."""
    for option in options:
        value = option.header.raw_value or option.header.value.encode()
        how = silent
        if option.HasField("append"):
            how = How.APPEND if option.append.value else How.SET
        elif 0 < option.append_action < len(_HOWS):
            how = _HOWS[option.append_action]
        yield HeaderChange(option.header.key.lower().encode(), value, how)


def _text(octets: bytes) -> str:
    """As Envoy tells bytes that are no UTF-8."""
    return octets.decode("utf-8", "replace").replace("\ufffd", "!")
