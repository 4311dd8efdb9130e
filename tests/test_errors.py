"""What can go wrong: each reaction has a root, each leaf a flag, a side, and a message."""

from __future__ import annotations

import pytest

from ztunnel import errors
from ztunnel.errors import (
    ConfigError,
    ConnectionFailed,
    Denied,
    Drained,
    Exhausted,
    Expired,
    Fault,
    Flag,
    GaveUp,
    HandedOver,
    HandshakeFailed,
    HboneTimedOut,
    IdentityMismatch,
    NoCertificate,
    NoDestination,
    NotCarried,
    Overflow,
    PeerError,
    Side,
    TlsFailed,
    Unreachable,
    Unsupported,
)

LEAVES = [
    (Denied, Flag.DENY, Side.SOURCE, False),
    (Unreachable, Flag.CONNECT, Side.DESTINATION, True),
    (Exhausted, Flag.CONNECT, Side.US, False),
    (HboneTimedOut, Flag.NETWORK_POLICY, Side.DESTINATION, False),
    (TlsFailed, Flag.TLS_FAILURE, Side.DESTINATION, False),
    (IdentityMismatch, Flag.IDENTITY_ERROR, Side.DESTINATION, False),
    (HandshakeFailed, Flag.H2_HANDSHAKE_FAILURE, Side.DESTINATION, False),
    (NoDestination, Flag.CONNECT, Side.DESTINATION, False),
    (Overflow, Flag.CONNECT, Side.US, False),
    (NotCarried, Flag.CONNECT, Side.SOURCE, False),
    (NoCertificate, Flag.TLS_FAILURE, Side.US, True),
    (GaveUp, Flag.CONNECT, Side.SOURCE, False),
    (Drained, Flag.NONE, Side.US, False),
    (Expired, Flag.NONE, Side.US, False),
    (HandedOver, Flag.NONE, Side.US, False),
]


@pytest.mark.parametrize(("leaf", "flag", "side", "retryable"), LEAVES)
def test_a_leaf_says_what_the_log_and_the_metrics_need(
    leaf: type[ConnectionFailed], flag: Flag, side: Side, retryable: bool
) -> None:
    error = leaf("where to look")
    assert (str(error), error.flag, error.side, error.retryable) == ("where to look", flag, side, retryable)


def test_every_way_in_which_a_connection_fails_is_listed_above() -> None:
    assert {leaf for leaf, *_ in LEAVES} == set(ConnectionFailed.__subclasses__())


def test_the_roots_are_told_apart() -> None:
    roots = (ConnectionFailed, PeerError, ConfigError, Unsupported)
    for root in roots:
        assert not issubclass(root, tuple(each for each in roots if each is not root))


def test_what_a_peer_sent_carries_the_answer() -> None:
    assert PeerError("bad").reply == 0
    assert PeerError("bad", 400).reply == 400


def test_a_denial_names_its_policy() -> None:
    assert Denied("no").policy == ""
    assert Denied("no", "default/p").policy == "default/p"


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault("a.yaml", 3, "spec.rules", "is not a list"), "a.yaml:3: spec.rules: is not a list"),
        (Fault("a.yaml", 0, "", "cannot be read"), "a.yaml: cannot be read"),
        (Fault("a.yaml", 7, "", "is empty"), "a.yaml:7: is empty"),
    ],
)
def test_a_fault_says_where(fault: Fault, text: str) -> None:
    assert str(fault) == text


def test_all_faults_come_at_once() -> None:
    faults = Fault("a.yaml", 1, "x", "one"), Fault("b.yaml", 2, "y", "two")
    error = ConfigError(*faults)
    assert error.faults == faults
    assert str(error) == "a.yaml:1: x: one\nb.yaml:2: y: two"


def test_flags_are_ztunnels() -> None:
    assert {flag.value for flag in Flag} == {
        "-", "DENY", "CONNECT", "TLS_FAILURE", "H2_HANDSHAKE_FAILURE", "NETWORK_POLICY", "IDENTITY_ERROR",
        "CERT_REVOKED",
    }  # fmt: skip
    assert errors.ConnectionFailed.flag is Flag.CONNECT
