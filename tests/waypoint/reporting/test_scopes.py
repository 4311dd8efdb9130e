"""What is reported at a waypoint, of Telemetry, the mesh config and its settings together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from random import Random

from tests.builders import world_of
from tests.l7.telemetry.test_attribute import EMPTY, SUBJECT
from tests.waypoint.mesh import CALLER, ME, SERVERS, SERVICE, WP
from ztunnel.l7.trace import Context
from ztunnel.model.labels import WorkloadLabels
from ztunnel.model.mesh_defaults import CustomTag, LogEncoding, MeshDefaults, TagSource, TracingDefaults
from ztunnel.model.provider import (
    ExtensionProvider,
    FileLog,
    LogFormat,
    OtelLog,
    OtelTraces,
    Prometheus,
    ServicePort,
    Unsupported,
    Zipkin,
)
from ztunnel.model.service import Service
from ztunnel.model.telemetry import (
    AccessLogging,
    MetricOverride,
    Metrics,
    TagOverride,
    Telemetry,
    Tracing,
)
from ztunnel.state.delta import apply
from ztunnel.state.world import World
from ztunnel.telemetry.span import Span
from ztunnel.waypoint.reporting.otlp import LogEntry
from ztunnel.waypoint.reporting.scopes import Own, Scopes

COLLECTOR = ServicePort("otel.shop.svc.cluster.local", 4317)
OWN_SERVICE = Service("wp", "shop", WP.hostname)
OTEL = ExtensionProvider("otel", OtelTraces(COLLECTOR))
ZIPKIN = ExtensionProvider("zipkin", Zipkin(COLLECTOR, short_ids=True))
LOGS = ExtensionProvider(
    "logs", OtelLog(COLLECTOR, format=LogFormat("%RESPONSE_CODE%", (("path", "%REQ(:PATH)%"),)))
)


class Told:
    """Outlets that remember."""

    def __init__(self) -> None:
        self.spans_of: dict[str, list[Span]] = {}
        self.entries_of: dict[str, list[LogEntry]] = {}
        self.lines_of: dict[str, list[str]] = {}
        self.turns: list[str] = []

    def begin(self) -> None:
        self.turns.append("begin")

    def end(self) -> None:
        self.turns.append("end")

    def spans(self, provider: ExtensionProvider) -> Callable[[Span], None]:
        return self.spans_of.setdefault(provider.name, []).append

    def entries(self, provider: ExtensionProvider) -> Callable[[LogEntry], None]:
        return self.entries_of.setdefault(provider.name, []).append

    def lines(self, path: str) -> Callable[[str], None] | None:
        return self.lines_of.setdefault(path, []).append if path != "/nowhere" else None


class Waypoint:
    """Its scopes, over a world that changes."""

    def __init__(self, *items: object, **own: object) -> None:
        self.world: World = world_of(ME, CALLER, *SERVERS, SERVICE, OWN_SERVICE)
        self.lines: list[str] = []
        self.said: list[str] = []
        self.told = Told()
        settings = Own(ME.uid, Random(1), self.lines.append, **own)  # type: ignore[arg-type] (of any kind)
        self.scopes = Scopes(lambda: self.world, settings, self.told, self.said.append)
        self.put(*items)

    def put(self, *items: object) -> None:
        self.world = apply(self.world, items)[0]  # type: ignore[arg-type] (the same)
        self.scopes.renew()

    def log(self) -> None:
        """Two requests: one with an error, one of which nothing is known."""
        scope = self.scopes.of(SERVICE)
        for subject in (SUBJECT, EMPTY):
            scope.log(subject, None)

    def enter(self, fields: list[tuple[bytes, bytes]] | None = None) -> Context | None:
        begin = self.scopes.of(SERVICE).enter
        return begin([] if fields is None else fields, b"") if begin is not None else None


def logging(*entries: AccessLogging) -> Telemetry:
    return Telemetry("t", "shop", access_logging=entries)


def test_without_a_word_it_is_as_the_settings_have_it() -> None:
    waypoint = Waypoint()
    waypoint.log()
    assert [line.split('"')[1].split()[0] for line in waypoint.lines] == ["GET", "-"]
    scope = waypoint.scopes.of(SERVICE)
    assert (scope.enter, scope.spans, scope.edits, scope.tcp) == (None, None, None, None)
    assert waypoint.scopes.of(SERVICE) is scope
    assert waypoint.scopes.of(None) is not scope
    spans: list[Span] = []
    traced = Waypoint(span=spans.append, percent=100.0)
    context = traced.enter()
    assert context is not None
    assert context.sampled


def test_logs_are_filtered_and_go_where_they_are_wanted() -> None:
    waypoint = Waypoint(
        logging(AccessLogging(("envoy",), filter="response.code >= 400"), AccessLogging(("logs", "file"))),
        LOGS,
        ExtensionProvider(
            "file", FileLog("/dev/stderr", LogFormat("", (("code", "%RESPONSE_CODE%"),)), True)
        ),
    )
    waypoint.log()
    assert waypoint.lines == []
    (line,) = waypoint.told.lines_of["/dev/stdout"]
    assert '"GET /a/b?c=d HTTP/1.1" 503' in line
    assert [json.loads(each) for each in waypoint.told.lines_of["/dev/stderr"]] == [
        {"code": 503},
        {"code": 0},
    ]
    first, second = waypoint.told.entries_of["logs"]
    assert (first.body, first.attributes) == ("503", (("path", "/a/b?c=d"),))
    assert second.attributes == (("path", ""),)
    waypoint.put(logging(AccessLogging(disabled=True)))
    waypoint.log()
    assert len(waypoint.told.lines_of["/dev/stdout"]) == 1
    assert waypoint.said == []


def test_formats_are_those_of_the_provider_or_of_the_mesh() -> None:
    for defaults, found in (
        (MeshDefaults(), '"GET /a/b?c=d HTTP/1.1"'),
        (MeshDefaults(log_format="%REQ(:METHOD)%!"), "GET!"),
        (MeshDefaults(log_encoding=LogEncoding.JSON), '"method":"GET"'),
        (MeshDefaults(log_format="%NO%"), '"GET /a/b?c=d HTTP/1.1"'),
    ):
        waypoint = Waypoint(defaults)
        waypoint.log()
        assert found in waypoint.lines[0]
        waypoint.put(logging(AccessLogging(("envoy",))))
        waypoint.log()
        assert found in waypoint.told.lines_of["/dev/stdout"][0]
        assert bool(waypoint.said) is (defaults.log_format == "%NO%")


def test_the_meshs_file_of_access_logs_is_for_whom_no_telemetry_and_no_provider_says_anything() -> None:
    in_file = MeshDefaults(log_file="/log", log_format="%RESPONSE_CODE%")
    waypoint = Waypoint(in_file)
    waypoint.log()
    assert (waypoint.lines, waypoint.told.lines_of) == ([], {"/log": ["503", "0"]})
    waypoint.put(replace(in_file, log_file="/nowhere"))
    waypoint.log()
    assert (waypoint.lines, len(waypoint.told.lines_of["/log"])) == ([], 2)
    for other in (logging(AccessLogging(("envoy",))), MeshDefaults(("envoy",), log_file="/log")):
        waypoint = Waypoint(in_file, other)
        waypoint.log()
        assert list(waypoint.told.lines_of) == ["/dev/stdout"]
    waypoint = Waypoint(in_file, logging(AccessLogging(disabled=True)))
    waypoint.log()
    assert (waypoint.lines, waypoint.told.lines_of) == ([], {})


def test_the_meshs_file_of_access_logs_counts_where_the_settings_want_no_log() -> None:
    waypoint = Waypoint(MeshDefaults(log_file="/dev/stdout"))
    waypoint.scopes = Scopes(
        lambda: waypoint.world, Own(ME.uid, Random(1)), waypoint.told, waypoint.said.append
    )
    waypoint.log()
    assert len(waypoint.told.lines_of["/dev/stdout"]) == 2


def test_a_format_that_is_not_of_its_encoding_is_told() -> None:
    waypoint = Waypoint(MeshDefaults(log_format="%PROTOCOL%", log_encoding=LogEncoding.JSON))
    waypoint.log()
    assert json.loads(waypoint.lines[0])["method"] == "GET"
    assert waypoint.said == ["accessLogFormat: accessLogEncoding is JSON, and this is no JSON object"]
    waypoint = Waypoint(MeshDefaults(log_format=' {"a": "%REQ(:METHOD)%"}', log_encoding=LogEncoding.JSON))
    waypoint.log()
    assert json.loads(waypoint.lines[0]) == {"a": "GET"}


def test_what_no_provider_takes_is_told() -> None:
    for name, provider, said in (
        ("none", OTEL, "there is none of that name"),
        ("otel", OTEL, "it is none of access logs"),
        ("bad", ExtensionProvider("bad", FileLog("", LogFormat("%NO%"))), "%NO% is not known"),
        ("nowhere", ExtensionProvider("nowhere", FileLog("/nowhere")), ""),
    ):
        waypoint = Waypoint(provider, logging(AccessLogging((name,))))
        waypoint.log()
        assert waypoint.lines == []
        assert (said in waypoint.said[0]) if said else not waypoint.said


def test_the_closest_telemetry_counts_and_its_going_away_too() -> None:
    mesh = replace(logging(AccessLogging(("envoy",))), namespace="istio-system", root=True)
    waypoint = Waypoint(mesh, logging(AccessLogging(disabled=True)))
    waypoint.log()
    assert waypoint.told.lines_of == {}
    waypoint.world = apply(waypoint.world, (), removed_http={Telemetry: ["shop/t"]})[0]
    waypoint.scopes.renew()
    waypoint.log()
    assert len(waypoint.told.lines_of["/dev/stdout"]) == 2
    assert waypoint.told.turns[-2:] == ["begin", "end"]


def test_a_waypoint_knows_itself_by_its_label_or_its_service() -> None:
    off = AccessLogging(disabled=True)
    for targets, label, lines in (
        ("Gateway wp", "", 0),
        ("Gateway other", "", 2),
        ("Gateway other", "other", 0),
        ("Gateway wp", "other", 2),
        ("Service web", "", 0),
        ("Service wp", "", 2),
    ):
        told = ("gateway.networking.k8s.io/gateway-name", label)
        labels = [WorkloadLabels(ME.uid, frozenset([told]))] if label else []
        waypoint = Waypoint(
            replace(logging(off), targets=(targets,)), *labels, MeshDefaults(access_logging=("envoy",))
        )
        waypoint.log()
        assert len(waypoint.told.lines_of.get("/dev/stdout", [])) == lines, (targets, label)


def test_spans_go_to_the_provider_with_its_headers_and_tags() -> None:
    tag = CustomTag("where", TagSource.ENVIRONMENT, "WHERE")
    waypoint = Waypoint(
        OTEL, ZIPKIN, Telemetry("t", "shop", tracing=(Tracing(("otel",), sampling=100.0, tags=(tag,)),)),
        environment={"WHERE": "here"},
    )  # fmt: skip
    context = waypoint.enter(fields := [])
    assert context is not None
    assert (context.sampled, len(context.trace_id)) == (True, 32)
    assert [name for name, _ in fields] == [b"traceparent"]
    spans = waypoint.scopes.of(SERVICE).spans
    assert spans is not None
    assert [(each.name, each.value(SUBJECT.record)) for each in spans.tags] == [("where", "here")]
    waypoint.put(Telemetry("t", "shop", tracing=(Tracing(("zipkin",), sampling=100.0, istio_tags=False),)))
    context = waypoint.enter(fields := [])
    assert context is not None
    assert context.trace_id.startswith("0" * 16)
    b3 = {b"x-b3-traceid", b"x-b3-spanid", b"x-b3-sampled"}
    assert {name for name, _ in fields} == b3
    spans = waypoint.scopes.of(SERVICE).spans
    assert spans is not None
    assert not spans.istio_tags
    assert set(waypoint.told.spans_of) == {"otel", "zipkin"}
    waypoint.put(ExtensionProvider("zipkin", Zipkin(COLLECTOR, w3c_too=True)))
    assert waypoint.enter(fields := []) is not None
    assert {name for name, _ in fields} == {b"traceparent", *b3}


def test_of_a_trace_that_is_hidden_whoever_comes_next_is_told_nothing() -> None:
    trace, parent = "4b" * 16, "aa" * 8
    said = [(b"traceparent", f"00-{trace}-{parent}-01".encode()), (b"tracestate", b"a=1"), (b"x", b"y")]
    said += [(b"b3", b"1"), (b"x-b3-traceid", trace.encode()), (b"x-b3-spanid", parent.encode())]
    waypoint = Waypoint(OTEL)
    for entry, reported in (
        (Tracing(("otel",), sampling=100.0, hidden=True), True),
        (Tracing(("otel",), disabled=True, hidden=True), False),
        (Tracing(("nobody",), hidden=True), False),
        (Tracing(hidden=True), False),
    ):
        waypoint.put(Telemetry("t", "shop", tracing=(entry,)))
        context = waypoint.enter(fields := list(said))
        assert fields == [(b"x", b"y")]
        assert (context is not None) is reported
        if context is not None:
            assert (context.trace_id, context.parent_id, context.sampled) == (trace, parent, True)
        assert (waypoint.scopes.of(SERVICE).spans is not None) is reported


def test_sampling_is_telemetrys_the_meshs_or_the_settings() -> None:
    for defaults, sampling, percent, share in (
        (MeshDefaults(), None, 100.0, 1.0),
        (MeshDefaults(spans=TracingDefaults(percent=0.0)), None, 100.0, 0.0),
        (MeshDefaults(spans=TracingDefaults(percent=0.0)), 100.0, 0.0, 1.0),
        (MeshDefaults(), 50.0, 100.0, 0.5),
    ):
        waypoint = Waypoint(
            OTEL, defaults, Telemetry("t", "shop", tracing=(Tracing(("otel",), sampling=sampling),)),
            percent=percent,
        )  # fmt: skip
        found = [waypoint.enter() for _ in range(1000)]
        count = sum(each.sampled for each in found if each is not None)
        assert abs(count / 1000 - share) < 0.08


def test_tracing_is_switched_on_for_the_whole_mesh() -> None:
    spans: list[Span] = []
    for defaults, own, collector in (
        (TracingDefaults(100.0, zipkin="zipkin.tools:9411"), None, "defaultConfig.tracing.zipkin"),
        (TracingDefaults(100.0, zipkin="zipkin.tools:9411"), spans.append, ""),
        (TracingDefaults(100.0), spans.append, ""),
        (TracingDefaults(100.0), None, None),
        (TracingDefaults(100.0, zipkin="zipkin.tools"), None, None),
    ):
        waypoint = Waypoint(MeshDefaults(traced=True, spans=defaults), span=own, percent=0.0)
        context = waypoint.enter()
        assert (context is not None and context.sampled) is (collector is not None), defaults
        assert list(waypoint.told.spans_of) == ([collector] if collector else [])
        wrong = "defaultConfig.tracing.zipkin.address must be host:port, is 'zipkin.tools'"
        assert waypoint.said == ([wrong] if defaults.zipkin == "zipkin.tools" else [])
        waypoint.put(Telemetry("t", "shop", tracing=(Tracing(disabled=True),)))
        assert waypoint.enter() is None


def test_without_the_switch_a_collector_of_the_mesh_is_for_nobody() -> None:
    waypoint = Waypoint(MeshDefaults(spans=TracingDefaults(100.0, zipkin="zipkin.tools:9411")))
    assert waypoint.enter() is None
    assert waypoint.told.spans_of == {}


def test_where_no_spans_are_reported_headers_pass_as_they_are() -> None:
    """A span that nobody reports would part what comes after it from its trace (istio/istio#51140)."""
    waypoint = Waypoint(OTEL, Telemetry("t", "shop", tracing=(Tracing(("otel",), disabled=True),)))
    assert waypoint.enter() is None
    assert waypoint.scopes.of(SERVICE).spans is None


def test_a_provider_that_takes_no_spans_takes_none_and_that_is_told() -> None:
    for name, said in (("none", "there is none of that name"), ("other", "it is none of spans"), ("", "")):
        providers = (name,) if name else ()
        waypoint = Waypoint(
            ExtensionProvider("other", Unsupported("datadog")),
            Telemetry("t", "shop", tracing=(Tracing(providers, sampling=1.0),)),
        )
        assert waypoint.enter() is None
        assert (said in waypoint.said[0]) if said else not waypoint.said


def test_a_percentage_alone_is_for_the_collector_of_the_settings() -> None:
    spans: list[Span] = []
    wish = Telemetry("t", "shop", tracing=(Tracing(sampling=100.0),))
    waypoint = Waypoint(wish, span=spans.append, percent=0.0)
    context = waypoint.enter()
    assert context is not None
    assert context.sampled
    plan = waypoint.scopes.of(SERVICE).spans
    assert plan is not None
    assert plan.put == spans.append


def test_metrics_are_changed_for_the_provider_that_is_scraped() -> None:
    every = Telemetry("t", "shop", metrics=(Metrics(overrides=(MetricOverride(disabled=True),)),))
    waypoint = Waypoint(every)
    scope = waypoint.scopes.of(SERVICE)
    assert scope.edits is not None
    assert scope.edits.of(SUBJECT) == []
    other = replace(every, metrics=(Metrics(("other",), every.metrics[0].overrides),))
    waypoint.put(other, ExtensionProvider("other", Prometheus()))
    assert scope.edits is not None
    waypoint.put(Telemetry("t", "shop"))
    assert scope.edits is None
    assert scope.tcp is None


def test_a_waypoint_that_is_not_known_yet_goes_by_its_settings() -> None:
    waypoint = Waypoint(logging(AccessLogging(disabled=True)))
    waypoint.world = World()
    waypoint.scopes.renew()
    waypoint.log()
    assert len(waypoint.lines) == 2


def test_what_is_wrong_is_told_once_for_all_destinations_and_as_long_as_it_is() -> None:
    waypoint = Waypoint(logging(AccessLogging(("nobody",))))
    scopes = [waypoint.scopes.of(replace(SERVICE, name=f"s{number}")) for number in range(20)]
    waypoint.put(MeshDefaults(metrics=("prometheus",)))
    assert len(waypoint.said) == 1
    assert all(scope.logs == () for scope in scopes)
    waypoint.put(logging(AccessLogging(("envoy",))))
    waypoint.put(logging(AccessLogging(("nobody",))))
    assert len(waypoint.said) == 2


def test_expressions_know_the_waypoint_itself_as_it_is_at_the_moment() -> None:
    tag = TagOverride("waypoint", value="node.metadata['NODE_NAME']")
    waypoint = Waypoint(
        Telemetry(
            "t", "shop",
            metrics=(Metrics(overrides=(MetricOverride(tags=(tag,)),)),),
            access_logging=(AccessLogging(("envoy",), filter=f"node.metadata['NAME'] == '{ME.name}'"),),
        ),
    )  # fmt: skip
    waypoint.log()
    assert len(waypoint.told.lines_of["/dev/stdout"]) == 2
    for node in ("n1", "n2"):
        waypoint.put(replace(ME, node=node))
        edits = waypoint.scopes.of(SERVICE).edits
        assert edits is not None
        assert {each.extra for each in edits.of(SUBJECT)} == {(("waypoint", node),)}


def test_destinations_with_the_same_objects_have_what_they_come_to_in_common() -> None:
    edits = (Metrics(overrides=(MetricOverride("REQUEST_SIZE", disabled=True),)),)
    waypoint = Waypoint(Telemetry("t", "shop", metrics=edits))
    first, second = (waypoint.scopes.of(replace(SERVICE, name=name)) for name in ("a", "b"))
    assert first is not second
    assert first.edits is second.edits
    assert first.edits is not None
