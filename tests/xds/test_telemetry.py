"""Telemetry as it travels to waypoints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.model.mesh_defaults import CustomTag, TagSource
from ztunnel.model.telemetry import (
    METRICS,
    AccessLogging,
    MetricOverride,
    Metrics,
    Mode,
    TagOverride,
    Telemetry,
    Tracing,
)
from ztunnel.xds.pb import telemetry_pb2 as pb
from ztunnel.xds.telemetry import parse_telemetry, render_telemetry

NAMES = st.text("abc-", min_size=1, max_size=5)
MODES = st.sampled_from(Mode)
SAID = st.one_of(st.none(), st.booleans())
CEL = st.sampled_from(["", "response.code >= 400", "request.host"])
PROVIDERS = st.lists(NAMES, max_size=2).map(tuple)
TAGS = st.builds(TagOverride, NAMES, st.booleans(), CEL)
OVERRIDES = st.builds(
    MetricOverride,
    st.sampled_from([*METRICS, "ALL_METRICS"]),
    MODES,
    SAID,
    st.lists(TAGS, max_size=2).map(tuple),
)
CUSTOM = st.builds(CustomTag, NAMES, st.sampled_from([TagSource.LITERAL, TagSource.HEADER]), NAMES, NAMES)
TELEMETRIES = st.builds(
    Telemetry,
    NAMES,
    NAMES,
    st.booleans(),
    st.lists(st.just("Gateway w"), max_size=1).map(tuple),
    st.sampled_from(["", "2026-01-01T00:00:00Z"]),
    st.lists(st.builds(Metrics, PROVIDERS, st.lists(OVERRIDES, max_size=2).map(tuple)), max_size=2).map(
        tuple
    ),
    st.lists(st.builds(AccessLogging, PROVIDERS, MODES, SAID, CEL), max_size=2).map(tuple),
    st.lists(
        st.builds(
            Tracing,
            PROVIDERS,
            MODES,
            st.one_of(st.none(), st.floats(0, 100)),
            SAID,
            st.one_of(st.none(), st.lists(CUSTOM, max_size=2).map(tuple)),
            SAID,
            SAID,
        ),
        max_size=1,
    ).map(tuple),
)


@given(TELEMETRIES)
def test_what_is_sent_is_what_arrives(telemetry: Telemetry) -> None:
    octets = render_telemetry(telemetry).SerializeToString()
    assert parse_telemetry(pb.Telemetry.FromString(octets)) == telemetry


ONE = Telemetry("a", "n")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (pb.Telemetry(namespace="n"), "needs a name"),
        (pb.Telemetry(name="a"), "needs a name"),
        (pb.Telemetry(name="a", namespace="n", access_logging=[pb.AccessLogging(mode="BOTH")]), "BOTH"),
        (
            pb.Telemetry(
                name="a", namespace="n", access_logging=[pb.AccessLogging(mode="SERVER", filter="nonsense(")]
            ),
            "nonsense",
        ),
        (
            pb.Telemetry(
                name="a",
                namespace="n",
                metrics=[pb.Metrics(overrides=[pb.MetricOverride(metric="NONE", mode="SERVER")])],
            ),
            "there is no metric 'NONE'",
        ),
        (
            pb.Telemetry(name="a", namespace="n", tracing=[pb.Tracing(mode="SERVER", sampling=101)]),
            "from 0 to 100",
        ),
        (
            render_telemetry(
                Telemetry("a", "n", tracing=(Tracing(tags=(CustomTag("t", TagSource.FORMATTER, "%NO%"),)),))
            ),
            "%NO%",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(message: pb.Telemetry, said: str) -> None:
    with pytest.raises(PeerError, match=said):
        parse_telemetry(message)
