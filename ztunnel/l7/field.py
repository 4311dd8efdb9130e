"""Fields that both versions of HTTP have, and what may stand behind a body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ztunnel.http1.head import Fields

_IN_NAMES: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_IN_VALUES: Final = bytes((0x09, *range(0x20, 0x7F), *range(0x80, 0x100)))

OURS: Final = frozenset(
    b"x-forwarded-client-cert x-envoy-internal x-envoy-retry-on x-envoy-retry-grpc-on x-envoy-max-retries "
    b"x-envoy-upstream-rq-timeout-ms x-envoy-upstream-rq-per-try-timeout-ms x-envoy-expected-rq-timeout-ms "
    b"x-envoy-upstream-alt-stat-name x-envoy-upstream-rq-timeout-alt-response "
    b"x-envoy-hedge-on-per-try-timeout "
    b"x-envoy-original-path x-envoy-original-url x-envoy-original-host x-envoy-force-trace x-envoy-ip-tags "
    b"x-envoy-decorator-operation x-istio-source x-envoy-auth-partial-body "
    b"x-envoy-auth-failure-mode-allowed".split()
)
"""What only a proxy that is trusted may say: taken from whoever says it."""

_NOT_BEHIND_A_BODY = OURS | frozenset(
    b"connection keep-alive proxy-connection transfer-encoding upgrade te trailer host expect content-length "
    b"content-type content-encoding content-range authorization proxy-authorization cookie set-cookie "
    b"cache-control max-forwards x-forwarded-for x-forwarded-host x-forwarded-proto x-request-id".split()
)


def can_stand_in_lines(fields: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether HTTP/1.1 has such fields: what HTTP/2 alone can carry (RFC 9113 section 8.2.1 is content with
    less) must not become two fields, or none, for whoever reads lines."""
    names = [name for name, _ in fields]
    if b"" in names or b"".join(names).translate(None, _IN_NAMES):
        return False
    return not b"".join([value for _, value in fields]).translate(None, _IN_VALUES)


def can_stand_in_a_line(name: bytes, value: bytes) -> bool:
    """The same of one."""
    return can_stand_in_lines(((name, value),))


def passed_trailers(untrusted: Fields) -> Fields:
    """Trailers as they are passed on: without what frames or routes a message, says who sends it, or what
    becomes of it (RFC 9110 section 6.5.1). Servers that put trailers among the headers would believe it."""
    if not untrusted:
        return ()
    return tuple(
        field
        for field in untrusted
        if field[0] not in _NOT_BEHIND_A_BODY and can_stand_in_a_line(field[0], field[1])
    )
