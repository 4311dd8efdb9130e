"""What can go wrong, sorted by what is done about it.

| root | reaction |
|---|---|
| ConnectionFailed | this one connection ends: one access-log line, one metric with its `flag` |
| PeerError | what the peer sent is wrong: answer with `reply` where the protocol has one, then close |
| ConfigError | what the operator gave is wrong: every fault at once, the last good state stays in force |
| anything else | a bug: the boundary in `run/reporting.py` ends the connection, logs its stack, counts it |
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from errno import ECONNREFUSED, EHOSTUNREACH


def reason_of(error: BaseException) -> str:
    """What happened, without the number and the path of an OSError; its kind where it says nothing."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class Flag(StrEnum):
    """`response_flags` of the metrics, with ztunnel's values (reference: ztunnel src/proxy/metrics.rs)."""

    NONE = "-"
    DENY = "DENY"
    CONNECT = "CONNECT"
    TLS_FAILURE = "TLS_FAILURE"
    H2_HANDSHAKE_FAILURE = "H2_HANDSHAKE_FAILURE"
    NETWORK_POLICY = "NETWORK_POLICY"
    IDENTITY_ERROR = "IDENTITY_ERROR"
    CERT_REVOKED = "CERT_REVOKED"


class Side(StrEnum):
    """Whose fault it is, so that the operator looks in the right place."""

    SOURCE = "source"
    DESTINATION = "destination"
    US = "us"


class ConnectionFailed(Exception):
    """One connection ends. The message is the access log's `error` and tells the operator where to look."""

    flag: Flag = Flag.CONNECT
    side: Side = Side.DESTINATION
    retryable: bool = False
    elsewhere: bool = False
    """Whether another endpoint of the service may do better."""
    errno: int = ECONNREFUSED
    """What the application's connect() fails with."""


class Denied(ConnectionFailed):
    """A policy refuses. The message names the policy, or says that none allowed."""

    flag = Flag.DENY
    side = Side.SOURCE

    def __init__(self, message: str, policy: str = "", details: str = "") -> None:
        """`policy` is the key (`namespace/name`) of the one that denied, "none allowed" where no ALLOW policy
        matched; empty where it was no policy. `details` are Envoy's, of a waypoint."""
        super().__init__(message)
        self.policy = policy
        self.details = details


class Unreachable(ConnectionFailed):
    """A TCP connection could not be made: refused, no route, reset."""

    flag = Flag.CONNECT
    retryable = True
    elsewhere = True


class Busy(Unreachable):
    """The peer takes no tunnel at the moment, and has not looked at this one: it may be asked again soon."""


NOT_TAKEN = (
    "applications do not take what was sent to them, and no more can be held (ZTUNNEL_BUFFER_LIMIT); "
    "most is this pod's and peer's"
)


class Exhausted(ConnectionFailed):
    """There are no descriptors for more connections, or no room for more bytes, and this one is the newest of
    whoever has the most."""

    flag = Flag.CONNECT
    side = Side.US

    def __init__(self, message: str = "no room for more connections; most are this pod's and peer's") -> None:
        super().__init__(message)


class HboneTimedOut(ConnectionFailed):
    """Nobody answered on 15008; in practice a NetworkPolicy that does not know about HBONE."""

    flag = Flag.NETWORK_POLICY
    elsewhere = True
    errno = EHOSTUNREACH


class TlsFailed(ConnectionFailed):
    """The TLS handshake did not complete."""

    flag = Flag.TLS_FAILURE


class IdentityMismatch(ConnectionFailed):
    """The peer proved to be somebody else, or proved nothing that can be accepted."""

    flag = Flag.IDENTITY_ERROR


class HandshakeFailed(ConnectionFailed):
    """TLS stood, HTTP/2 or the CONNECT on it did not."""

    flag = Flag.H2_HANDSHAKE_FAILURE


class Overflow(ConnectionFailed):
    """A service has as many connections as its DestinationRule lets it have at once."""

    flag = Flag.CONNECT
    side = Side.US


class NoDestination(ConnectionFailed):
    """The world knows nowhere to send this: no healthy endpoint, unknown waypoint, a call to ourselves."""

    flag = Flag.CONNECT


class NotCarried(ConnectionFailed):
    """A pod was to forward it outwards for something that has not its identity."""

    side = Side.SOURCE


class NoCertificate(ConnectionFailed):
    """No valid certificate for the local workload, so nothing can be proved to the peer."""

    flag = Flag.TLS_FAILURE
    side = Side.US
    retryable = True


class GaveUp(ConnectionFailed):
    """The application waits for its connection no longer."""

    flag = Flag.CONNECT
    side = Side.SOURCE


class Drained(ConnectionFailed):
    """The proxy stops and the drain's deadline has passed."""

    flag = Flag.NONE
    side = Side.US


class Expired(ConnectionFailed):
    """It was idle for too long, or is as old as it may become, as its DestinationRule says."""

    flag = Flag.NONE
    side = Side.US


class HandedOver(ConnectionFailed):
    """A successor of this process makes this call, or accounts for this flow: here it ends without a word."""

    flag = Flag.NONE
    side = Side.US

    def __init__(self, message: str = "the successor of this proxy goes on with it") -> None:
        super().__init__(message)


class PeerError(Exception):
    """What the peer sent cannot be accepted. `reply` is the status or code to answer with, 0 for none."""

    def __init__(self, message: str, reply: int = 0) -> None:
        super().__init__(message)
        self.reply = reply


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing wrong in what the operator gave: `file:line: field: message`."""

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.field, self.message) if part)


class ConfigError(Exception):
    """Everything that is wrong in what the operator gave, at once."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


class Unsupported(Exception):
    """This machine lacks something that we need. The message names it and the fix, in one sentence."""
