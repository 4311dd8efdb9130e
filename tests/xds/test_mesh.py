"""Providers and defaults survive the way there and back; what makes no sense is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xds.test_routes import retries
from ztunnel.errors import PeerError
from ztunnel.model.http_policy import TextKind, TextMatch
from ztunnel.model.mesh_defaults import CustomTag, LogEncoding, MeshDefaults, TagSource, TracingDefaults
from ztunnel.model.provider import (
    BodyCheck,
    ExtAuthz,
    ExtensionProvider,
    FileLog,
    LogFormat,
    OtelLog,
    OtelTraces,
    Prometheus,
    SentHeader,
    ServicePort,
    Speech,
    Unsupported,
    Zipkin,
)
from ztunnel.model.route_policy import RetryDefault
from ztunnel.xds.mesh import parse_defaults, parse_provider, render_defaults, render_provider
from ztunnel.xds.pb import mesh_pb2 as pb

text = st.text("ab/*", max_size=4)
number = st.integers(0, 2**32 - 1)
seconds = st.floats(0.001, 86400)
truth = st.booleans()


def some(each):
    return st.lists(each, max_size=2).map(tuple)


pairs = some(st.tuples(text, text))
ports = st.builds(ServicePort, text, st.integers(0, 65535), text)
matches = some(st.builds(TextMatch, st.sampled_from(TextKind), text))
bodies = st.none() | st.builds(BodyCheck, number, truth, truth)
authorizers = st.builds(
    ExtAuthz, st.sampled_from(Speech), ports, seconds, truth, st.integers(200, 599), text, matches, pairs,
    bodies, matches, matches, matches, truth,
)  # fmt: skip
formats = st.builds(LogFormat, text, pairs)
headers = some(st.builds(SentHeader, text, text, text))
kinds = st.one_of(
    authorizers,
    st.builds(FileLog, text, formats, truth),
    st.builds(OtelLog, ports, text, formats),
    st.builds(OtelTraces, ports, text, seconds, headers, number, truth, truth),
    st.builds(Zipkin, ports, text, seconds, headers, number, truth, truth),
    st.just(Prometheus()),
    st.builds(Unsupported, text),
)
providers = st.builds(ExtensionProvider, st.text("ab", min_size=1), kinds)
tags = some(st.builds(CustomTag, text, st.sampled_from(TagSource), text, text))
spans = st.builds(TracingDefaults, st.none() | st.floats(0, 100), number, tags, text)
defaults = st.builds(
    MeshDefaults, some(text), some(text), some(text), text, st.sampled_from(LogEncoding), text, truth, spans,
    text, st.none() | st.builds(RetryDefault, st.none() | retries, seconds),
)  # fmt: skip


@settings(max_examples=200)
@given(providers)
def test_a_provider_comes_back_as_it_was(provider):
    message = pb.ExtensionProvider.FromString(render_provider(provider).SerializeToString())
    assert parse_provider(message) == provider


@given(defaults)
def test_defaults_come_back_as_they_were(one):
    assert parse_defaults(pb.MeshDefaults.FromString(render_defaults(one).SerializeToString())) == one


ASKED = {"speech": "http", "timeout_seconds": 1, "error_status": 403, "service": {"port": 80}}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (pb.ExtensionProvider(), "a provider without a name"),
        (pb.ExtensionProvider(name="a"), "what: of a kind that is not known here"),
        (pb.ExtensionProvider(name="a", ext_authz=ASKED | {"speech": "fax"}), "'fax' is not a valid Speech"),
        (pb.ExtensionProvider(name="a", ext_authz=ASKED | {"timeout_seconds": 0}), "timeout_seconds: from"),
        (
            pb.ExtensionProvider(name="a", ext_authz=ASKED | {"timeout_seconds": float("nan")}),
            "timeout_seconds: from",
        ),
        (pb.ExtensionProvider(name="a", ext_authz=ASKED | {"error_status": 7}), "error_status: from 200"),
        (pb.ExtensionProvider(name="a", ext_authz=ASKED | {"service": {"port": 70000}}), "port: from 0"),
        (
            pb.ExtensionProvider(name="a", ext_authz=ASKED | {"include_headers": [{"kind": "x"}]}),
            "'x' is not a valid TextKind",
        ),
    ],
)
def test_a_provider_that_makes_no_sense_is_refused(message, reason):
    with pytest.raises(PeerError, match=reason):
        parse_provider(message)


def test_defaults_that_make_no_sense_are_refused():
    with pytest.raises(PeerError, match="'XML' is not a valid LogEncoding"):
        parse_defaults(pb.MeshDefaults(log_encoding="XML"))
