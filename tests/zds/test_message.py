"""The agent's messages: what each means, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.zds.agent import add, delete, keep, snapshot
from ztunnel.errors import PeerError
from ztunnel.xds.pb import zds_pb2
from ztunnel.zds.message import (
    MESSAGE_BYTES,
    Add,
    Delete,
    Keep,
    Named,
    SnapshotSent,
    parse,
    render_answer,
    render_hello,
)

WEB = Named("web-1", "shop", "web")


@pytest.mark.parametrize(
    ("sent", "descriptors", "meant"),
    [
        (add("u1", WEB), 1, Add("u1", WEB)),
        (keep("u1"), 0, Keep("u1")),
        (delete("u1"), 0, Delete("u1")),
        (snapshot(), 0, SnapshotSent()),
    ],
)
def test_each_message_says_what_the_agent_meant(sent: bytes, descriptors: int, meant: object) -> None:
    assert parse(sent, descriptors) == meant


def test_the_bytes_are_those_that_istio_sends() -> None:
    # AddWorkload: uid 1, workload_info 2 (name 1, namespace 2, service_account 3). DelWorkload: uid 2.
    assert parse(bytes.fromhex("0a12 0a0275 31 120c 0a0177 12046e616d65 1a0173".replace(" ", "")), 1) == Add(
        "u1", Named("w", "name", "s")
    )
    assert parse(bytes.fromhex("12041202 7531".replace(" ", "")), 0) == Delete("u1")
    assert parse(bytes.fromhex("2a040a02 7531".replace(" ", "")), 0) == Keep("u1")
    assert parse(bytes.fromhex("1a00"), 0) == SnapshotSent()
    assert render_hello() == bytes.fromhex("0801")
    assert render_answer() == bytes.fromhex("0a00")
    assert render_answer("no") == bytes.fromhex("0a040a026e6f")


@pytest.mark.parametrize(
    ("sent", "descriptors", "reason"),
    [
        (add("u1", WEB), 0, "comes with one network namespace, this one with 0"),
        (add("u1", WEB), 2, "this one with 2"),
        (keep("u1"), 1, "needs none"),
        (delete("u1"), 1, "needs none"),
        (snapshot(), 1, "needs none"),
        (add("", WEB), 1, "a uid has 1 to 253 characters, this one 0"),
        (add("u" * 254, WEB), 1, "this one 254"),
        (delete(""), 0, "a uid has"),
        (add("u1", Named("", "shop", "web")), 1, "without workload_info"),
        (add("u1", Named("web-1", "", "web")), 1, "without workload_info"),
        (add("u1", Named("web-1", "shop", "")), 1, "without workload_info"),
        (b"", 0, "no payload that is known"),
        (bytes.fromhex("2200"), 0, "no payload that is known"),  # NoSnapshotPresent of an old Istio
        (b"\xff\xff\xff", 0, "no WorkloadRequest"),
        (bytes.fromhex("0a040a02 ffff".replace(" ", "")), 1, "no WorkloadRequest"),  # no UTF-8
        (b"\0" * (MESSAGE_BYTES + 1), 0, "longer than"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(sent: bytes, descriptors: int, reason: str) -> None:
    with pytest.raises(PeerError, match=reason):
        parse(sent, descriptors)


def test_a_message_of_which_a_part_is_missing_is_none() -> None:
    with pytest.raises(PeerError, match="too many descriptors"):
        parse(delete("u1"), 0, truncated=True)


@given(st.binary(max_size=200), st.integers(0, 3))
def test_garbage_is_a_message_or_a_peer_error(untrusted: bytes, descriptors: int) -> None:
    try:
        found = parse(untrusted, descriptors)
    except PeerError:
        return
    assert isinstance(found, Add | Keep | Delete | SnapshotSent)


@given(st.text(min_size=1, max_size=253), st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_names_come_as_they_were_sent(uid: str, name: str, namespace: str, account: str) -> None:
    sent = add(uid, Named(name, namespace, account))
    if len(sent) <= MESSAGE_BYTES:
        assert parse(sent, 1) == Add(uid, Named(name, namespace, account))


@given(st.text(max_size=3000))
def test_an_answer_always_fits_what_the_agent_reads(error: str) -> None:
    rendered = render_answer(error)
    assert len(rendered) <= 1024
    told = zds_pb2.WorkloadResponse.FromString(rendered).ack.error
    assert error.startswith(told)
    assert told or not error
