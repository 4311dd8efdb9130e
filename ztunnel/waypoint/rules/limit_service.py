"""What a rate limit service is asked, and what its answer means (envoy.service.ratelimit.v3; Envoy's rate
limit filter)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from ztunnel.http1.head import Fields
from ztunnel.l7.field import OURS, can_stand_in_a_line
from ztunnel.l7.limits.compiled import Entries
from ztunnel.l7.limits.limits import LIMITED_FIELDS, RESOURCE_EXHAUSTED
from ztunnel.l7.reply import Reply
from ztunnel.model.rate_limit import GlobalLimit, RateLimitPolicy
from ztunnel.xds.pb import limit_service_pb2 as pb

METHOD: Final = b"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"

FAILED: Final = Reply(500, "RLSE", "rate_limiter_error")
"""Of a request for which there is no answer, where it may not pass without one."""

_UNITS: Final = {1: 1, 2: 60, 3: 3600, 4: 86400, 5: 2592000, 6: 31536000, 7: 604800}
"""Seconds of each (Envoy's XRateLimitHeaderUtils)."""
_MOST_FIELDS: Final = 32
_NOT_ADDED: Final = OURS | frozenset(
    b"connection keep-alive proxy-connection transfer-encoding upgrade te trailer host expect "
    b"content-length".split()
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service said.

    Attributes:
        limited: whether the request is one too many.
        response: fields that its response has besides.
        request: fields that its server gets besides, where it passes.
        told: what its response tells of limits.
        body: of a refusal.
    """

    limited: bool
    response: Fields
    request: Fields
    told: Fields
    body: bytes


def render(limit: GlobalLimit, descriptors: Iterable[Entries]) -> bytes:
    """The message that a service is asked by."""
    made = pb.RateLimitRequest(domain=limit.domain, hits_addend=limit.hits)
    for entries in descriptors:
        one = made.descriptors.add()
        for key, value in entries:
            # Values of headers that are no UTF-8 cannot be told otherwise.
            text = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            one.entries.add(key=key, value=text)
    return made.SerializeToString()


def parse(untrusted: bytes) -> Answer | None:
    """What an answer says; None: it is none."""
    try:
        found = pb.RateLimitResponse.FromString(untrusted)
    except DecodeError:
        return None
    limited = found.overall_code == pb.RateLimitResponse.OVER_LIMIT
    return Answer(
        limited,
        tuple(_fields(found.response_headers_to_add)),
        tuple(_fields(found.request_headers_to_add)),
        tuple(_told(found.statuses)),
        found.raw_body,
    )


def refusal(policy: RateLimitPolicy, answer: Answer) -> Reply:
    """The reply to a request that is one too many."""
    code = RESOURCE_EXHAUSTED if policy.exhausted else None
    details = "request_rate_limited"
    return Reply(429, "RL", details, fields=LIMITED_FIELDS, payload=answer.body, grpc_status=code)


def _fields(untrusted: Iterable[pb.HeaderValue]) -> Iterator[tuple[bytes, bytes]]:
    """Those that can be added to a message without making another one of it."""
    for number, one in enumerate(untrusted):
        name, value = one.key.lower().encode(), one.raw_value or one.value.encode()
        if number < _MOST_FIELDS and name not in _NOT_ADDED and can_stand_in_a_line(name, value):
            yield name, value


def _told(statuses: Iterable[pb.RateLimitResponse.DescriptorStatus]) -> Iterator[tuple[bytes, bytes]]:
    """As the IETF's draft-polli-ratelimit-headers-03 has it, of the descriptor with the least left."""
    limits = [one for one in statuses if one.HasField("current_limit")]
    if not limits:
        return
    least = min(limits, key=lambda one: one.limit_remaining)
    quotas = "".join(map(_quota, limits))
    yield b"x-ratelimit-limit", f"{least.current_limit.requests_per_unit}{quotas}".encode()
    yield b"x-ratelimit-remaining", b"%d" % least.limit_remaining
    yield b"x-ratelimit-reset", b"%d" % max(0, least.duration_until_reset.seconds)


def _quota(status: pb.RateLimitResponse.DescriptorStatus) -> str:
    limit = status.current_limit
    window = _UNITS.get(limit.unit, 0)
    if not window:
        return ""
    shown = limit.name.replace("\\", "").replace('"', "")
    name = f';name="{shown}"' if shown and shown.isascii() and shown.isprintable() else ""
    return f", {limit.requests_per_unit};w={window}{name}"
