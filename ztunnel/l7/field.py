"""Fields that both versions of HTTP have, and what may stand behind a body."""

from __future__ import annotations

import re

from ztunnel.http1.head import Fields

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")

OURS = frozenset(
    b"x-forwarded-client-cert x-envoy-internal x-envoy-retry-on x-envoy-retry-grpc-on x-envoy-max-retries "
    b"x-envoy-upstream-rq-timeout-ms x-envoy-upstream-rq-per-try-timeout-ms x-envoy-expected-rq-timeout-ms "
    b"x-envoy-upstream-alt-stat-name x-envoy-upstream-rq-timeout-alt-response "
    b"x-envoy-hedge-on-per-try-timeout "
    b"x-envoy-original-path x-envoy-original-url x-envoy-original-host x-envoy-force-trace x-envoy-ip-tags "
    b"x-envoy-decorator-operation x-istio-source".split()
)
"""What only a proxy that is trusted may say: taken from whoever says it."""

_NOT_BEHIND_A_BODY = OURS | frozenset(
    b"connection keep-alive proxy-connection transfer-encoding upgrade te trailer host expect content-length "
    b"content-type content-encoding content-range authorization proxy-authorization cookie set-cookie "
    b"cache-control max-forwards x-forwarded-for x-forwarded-host x-forwarded-proto x-request-id".split()
)


def can_stand_in_a_line(name: bytes, value: bytes) -> bool:
    """Whether HTTP/1.1 has such a field: what HTTP/2 alone can carry (RFC 9113 section 8.2.1 is content with
    less) must not become two fields, or none, for whoever reads lines."""
    return _NAME.fullmatch(name) is not None and _VALUE.fullmatch(value) is not None


def passed_trailers(untrusted: Fields) -> Fields:
    """Trailers as they are passed on: without what frames or routes a message, says who sends it, or what
    becomes of it (RFC 9110 section 6.5.1). Servers that put trailers among the headers would believe it."""
    return tuple(
        field
        for field in untrusted
        if field[0] not in _NOT_BEHIND_A_BODY and can_stand_in_a_line(field[0], field[1])
    )
