"""The texts of settings give values or say what is accepted."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel import values


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86400), ("5m", 300), ("5s", 5), ("1m30s", 90), ("250ms", 0.25), ("1h0m0.5s", 3600.5)],
)
def test_durations_are_written_as_istio_writes_them(text, seconds):
    assert values.duration(text) == seconds


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (values.bytes_from(0, 1 << 40), "64Ki", 65536),
        (values.bytes_from(0, 1 << 40), "1Gi", 1 << 30),
        (values.number(1, 9), "9", 9),
        (values.flag, "TRUE", True),
        (values.names, "a.b, c", ("a.b", "c")),
        (values.names, "", ()),
        (values.address, "istiod:15012", "https://istiod:15012"),
        (values.address, "http://[fd00::1]:1", "http://[fd00::1]:1"),
        (values.address, "", ""),
        (values.maybe_path, "", None),
        (values.member(Colour), "blue", Colour.BLUE),
        (values.levels, "info,ztunnel::proxy=debug", "info,ztunnel::proxy=debug"),
    ],
)
def test_what_a_text_means(read, text, value):
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "accepted"),
    [
        (values.duration, "24", "a duration such as"),
        (values.positive_duration, "0s", "longer than zero"),
        (values.keepalive_duration, "32768s", "up to 32767s"),
        (values.bytes_from(10, 20), "21", "from 10 to 20"),
        (values.number(1, 9), "\u0661", "from 1 to 9"),
        (values.flag, "yes", "true or false"),
        (values.name, "A", "lower-case"),
        (values.member(Colour), "green", "red or blue"),
        (values.one_of("a", "b"), "c", "a or b"),
        (values.path, "state", "absolute"),
        (values.levels, "loud", "trace, debug"),
        (values.address, "ftp://x:1", "https://<host>:<port>"),
        (values.listen, "15000", "127.0.0.1:15000"),
        (values.namespace_path, "/run/{pod}", "{namespace} and {name}"),
    ],
)
def test_what_is_accepted_is_said(read, text, accepted):
    with pytest.raises(ValueError, match=accepted):
        read(text)


READERS = [
    values.duration,
    values.keepalive_duration,
    values.bytes_from(0, 1 << 40),
    values.number(0, 10**6),
    values.names,
    values.address,
    values.listen,
    values.levels,
    values.namespace_path,
    values.member(Colour),
]


@given(st.sampled_from(READERS), st.text())
def test_whatever_is_written_there_is_a_value_or_what_is_accepted(read, text):
    with suppress(ValueError):
        read(text)


@pytest.mark.parametrize("raw", ["", "example.com/mesh", "clusterissuers.cert-manager.io/mesh", "a.b/c/d.e"])
def test_a_signer_is_a_domain_and_a_path(raw):
    assert values.signer(raw) == raw


@pytest.mark.parametrize(
    "raw",
    ["mesh", "example.com", "example/mesh", "Example.com/mesh", "a.b/c d", "kubernetes.io/kubelet-serving"],
)
def test_what_is_no_signer_for_workloads_is_refused(raw):
    with pytest.raises(ValueError, match="signer"):
        values.signer(raw)
