"""What several Telemetry objects come to, by the cases of Istio's own tests (pilot/pkg/model/
telemetry_test.go) and documentation."""

from __future__ import annotations

import pytest

from ztunnel.l7.telemetry.merging import (
    MetricPlan,
    TracingPlan,
    applicable,
    merge_logging,
    merge_metrics,
    merge_tracing,
)
from ztunnel.model.mesh_defaults import CustomTag, MeshDefaults, TagSource, TracingDefaults
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


def chosen(*telemetries: Telemetry, service: str = "Service shop/orders") -> list[str]:
    return [each.name for each in applicable(telemetries, "shop", ("waypoint",), service)]


def test_the_more_general_come_first_and_the_oldest_counts() -> None:
    root = Telemetry("mesh", "istio-system", root=True, created="2020")
    later = Telemetry("later", "istio-system", root=True, created="2021")
    space = Telemetry("space", "shop", created="2022")
    other = Telemetry("other", "elsewhere")
    service = Telemetry("service", "shop", targets=("Service orders",))
    assert chosen(service, other, space, later, root) == ["mesh", "space", "service"]
    assert chosen() == []


@pytest.mark.parametrize(
    ("targets", "root", "counts"),
    [
        (("Gateway waypoint",), False, True),
        (("Gateway other",), False, False),
        (("Service orders",), False, True),
        (("Service other",), False, False),
        (("ServiceEntry orders",), False, False),
        (("Service other", "Gateway waypoint"), False, True),
        (("GatewayClass istio-waypoint",), False, False),
        (("GatewayClass istio-waypoint",), True, True),
        (("GatewayClass other",), True, False),
        (("Pod orders",), False, False),
    ],
)
def test_one_with_targets_counts_for_these(targets: tuple[str, ...], root: bool, counts: bool) -> None:
    one = Telemetry("one", "istio-system" if root else "shop", root, targets)
    assert chosen(one) == (["one"] if counts else [])


def test_a_service_of_another_namespace_has_that_namespaces_beside_the_waypoints() -> None:
    """And what is for the waypoint is for it, too (istio/istio#61538)."""
    own, other = Telemetry("own", "shop"), Telemetry("other", "elsewhere")
    gateway = Telemetry("gateway", "shop", targets=("Gateway waypoint",))
    assert chosen(other, own, gateway, service="Service elsewhere/web") == ["own", "other", "gateway"]
    assert chosen(other, own, gateway, service="") == ["own", "gateway"]


def test_a_target_is_in_the_namespace_of_its_object() -> None:
    assert chosen(Telemetry("one", "elsewhere", targets=("Gateway waypoint", "Service orders"))) == []
    other = Telemetry("one", "elsewhere", targets=("Service orders",))
    assert chosen(other, service="Service elsewhere/orders") == ["one"]


def test_of_those_with_targets_the_closest_counts_alone() -> None:
    of_class = Telemetry("class", "istio-system", True, ("GatewayClass istio-waypoint",))
    gateway = Telemetry("gateway", "shop", targets=("Gateway waypoint",))
    service = Telemetry("service", "shop", targets=("Service orders",), created="2030")
    assert chosen(of_class, gateway, service) == ["service"]
    assert chosen(of_class, gateway, service, service="") == ["gateway"]
    assert chosen(of_class) == ["class"]


def logging(*levels: tuple[AccessLogging, ...], defaults: tuple[str, ...] = ()) -> dict[str, str] | None:
    telemetries = [Telemetry(str(n), "n", access_logging=each) for n, each in enumerate(levels)]
    return merge_logging(telemetries, defaults)


ENVOY = ("envoy",)


@pytest.mark.parametrize(
    ("levels", "defaults", "found"),
    [
        ([], (), None),
        ([()], (), None),
        ([], ENVOY, {"envoy": ""}),
        ([(AccessLogging(ENVOY),)], (), {"envoy": ""}),
        ([(AccessLogging(),)], ENVOY, {"envoy": ""}),
        ([(AccessLogging(disabled=True),)], ENVOY, {}),
        ([(AccessLogging(ENVOY, disabled=True),)], (), {}),
        # The mesh logs, a namespace does not; and the other way round.
        ([(AccessLogging(ENVOY),), (AccessLogging(disabled=True),)], (), {}),
        ([(AccessLogging(ENVOY, disabled=True),), (AccessLogging(ENVOY),)], (), {"envoy": ""}),
        # The closer level's providers count alone.
        ([(AccessLogging(ENVOY),), (AccessLogging(("otel",)),)], (), {"otel": ""}),
        ([(AccessLogging(ENVOY), AccessLogging(("otel",)))], (), {"envoy": "", "otel": ""}),
        # A waypoint is a server.
        ([(AccessLogging(ENVOY, Mode.CLIENT),)], (), {}),
        ([(AccessLogging(ENVOY, Mode.SERVER),)], (), {"envoy": ""}),
        ([(AccessLogging(ENVOY, Mode.CLIENT, disabled=True),)], ENVOY, {}),
        ([(AccessLogging(ENVOY),), (AccessLogging((), Mode.CLIENT, disabled=True),)], (), {"envoy": ""}),
        ([(AccessLogging(ENVOY),), (AccessLogging((), Mode.SERVER, disabled=True),)], (), {}),
        # What is for clients takes no providers from servers.
        ([(AccessLogging(ENVOY),), (AccessLogging(("otel",), Mode.CLIENT),)], (), {"envoy": ""}),
        # A filter that stands beside no provider is nobody's, as in Istio (istio/istio#41170).
        ([(AccessLogging(ENVOY), AccessLogging(filter="a"))], (), {"envoy": ""}),
        ([(AccessLogging(filter="a"),)], ENVOY, {"envoy": ""}),
        # Filters go with the provider that they stand beside.
        ([(AccessLogging(ENVOY, filter="a"),)], (), {"envoy": "a"}),
        ([(AccessLogging(ENVOY, filter="a"),), (AccessLogging(ENVOY, filter="b"),)], (), {"envoy": "b"}),
        ([(AccessLogging(ENVOY, filter="a"),), (AccessLogging(ENVOY),)], (), {"envoy": ""}),
        ([(AccessLogging(ENVOY, filter="a"),), (AccessLogging(),)], (), {"envoy": "a"}),
        # Each mode has its own (istio/istio#43371).
        (
            [(AccessLogging(ENVOY, Mode.SERVER, filter="a"), AccessLogging(ENVOY, Mode.CLIENT, filter="b"))],
            (),
            {"envoy": "a"},
        ),
        (
            [(AccessLogging(ENVOY, Mode.CLIENT, filter="b"), AccessLogging(ENVOY, Mode.SERVER, filter="a"))],
            (),
            {"envoy": "a"},
        ),
    ],
)
def test_access_logs(
    levels: list[tuple[AccessLogging, ...]], defaults: tuple[str, ...], found: dict[str, str] | None
) -> None:
    assert logging(*levels, defaults=defaults) == found


def metrics(
    *levels: tuple[Metrics, ...], defaults: tuple[str, ...] = ("prometheus",)
) -> dict[str, dict[str, MetricPlan]]:
    return merge_metrics([Telemetry(str(n), "n", metrics=each) for n, each in enumerate(levels)], defaults)


def override(metric: str = "ALL_METRICS", **tags: str | None) -> MetricOverride:
    made = tuple(TagOverride(name, value is None, value or "") for name, value in tags.items())
    return MetricOverride(metric, tags=made)


def test_without_a_word_the_default_provider_has_everything() -> None:
    assert metrics() == {"prometheus": {}}
    assert metrics(defaults=()) == {}
    assert metrics((Metrics(overrides=(override(x="1"),)),), defaults=()) == {}


def test_overrides_of_all_levels_add_up_and_the_closer_one_wins() -> None:
    (found,) = metrics(
        (Metrics(overrides=(override(a="1", b=None),)),),
        (Metrics(overrides=(override("REQUEST_COUNT", a="2", c="3"),)),),
    ).values()
    assert found["REQUEST_COUNT"] == MetricPlan(False, {"a": "2", "b": None, "c": "3"})
    assert found["REQUEST_SIZE"] == MetricPlan(False, {"a": "1", "b": None})
    assert set(found) == set(METRICS)


def test_metrics_can_be_taken_away_one_by_one_or_all() -> None:
    one = MetricOverride("REQUEST_SIZE", disabled=True)
    assert metrics((Metrics(overrides=(one,)),)) == {"prometheus": {"REQUEST_SIZE": MetricPlan(True)}}
    every = MetricOverride(disabled=True)
    assert metrics((Metrics(overrides=(every,)),)) == {}
    again = MetricOverride("REQUEST_COUNT", disabled=False)
    (found,) = metrics((Metrics(overrides=(every,)),), (Metrics(overrides=(again,)),)).values()
    assert found == {"REQUEST_COUNT": MetricPlan(False)}


def test_what_is_for_clients_is_not_for_a_waypoint() -> None:
    client = MetricOverride("REQUEST_COUNT", Mode.CLIENT, True)
    assert metrics((Metrics(overrides=(client,)),)) == {"prometheus": {}}
    all_of_clients = MetricOverride(mode=Mode.CLIENT, disabled=True)
    assert metrics((Metrics(overrides=(all_of_clients,)),)) == {"prometheus": {}}
    off = Metrics(overrides=(MetricOverride(disabled=True),))
    assert metrics((off,), (Metrics(overrides=(client,)),)) == {}


def test_a_provider_named_again_brings_back_nothing() -> None:
    """istio/istio#51697: what brings metrics back is an override."""
    off = Metrics(("prometheus",), (MetricOverride(disabled=True),))
    assert metrics((off,), (Metrics(("prometheus",)),)) == {}
    assert metrics((off,), (Metrics(("prometheus",), (MetricOverride(),)),)) != {}


def test_providers_of_a_closer_level_replace_the_others() -> None:
    wide = Metrics(("prometheus",), (override(a="1"),))
    assert metrics((wide,), (Metrics(("other",)),)) == {"other": {}}


def traced(*levels: Tracing, defaults: MeshDefaults | None = None) -> TracingPlan | None:
    telemetries = [Telemetry(str(n), "n", tracing=(each,)) for n, each in enumerate(levels)]
    return merge_tracing(telemetries, defaults or MeshDefaults())


TAG = CustomTag("a", TagSource.LITERAL, "1")
OTHER = CustomTag("b", TagSource.HEADER, "x-b", "none")


@pytest.mark.parametrize(
    ("levels", "defaults", "plan"),
    [
        ([], None, None),
        ([], MeshDefaults(tracing=("otel",)), TracingPlan("otel")),
        ([], MeshDefaults(spans=TracingDefaults(percent=7.0)), None),
        ([], MeshDefaults(traced=True, spans=TracingDefaults(percent=7.0)), TracingPlan("", False, 7.0)),
        ([], MeshDefaults(traced=True, tracing=("otel",)), TracingPlan("otel")),
        ([Tracing(disabled=True)], MeshDefaults(traced=True), TracingPlan("", True)),
        ([Tracing(("otel",))], None, TracingPlan("otel")),
        ([Tracing(("otel",)), Tracing(("zipkin",))], None, TracingPlan("zipkin")),
        ([Tracing(("otel",), sampling=50.0), Tracing(sampling=0.0)], None, TracingPlan("otel", False, 0.0)),
        ([Tracing(("otel",), disabled=True), Tracing(disabled=False)], None, TracingPlan("otel")),
        ([Tracing(("otel",)), Tracing(disabled=True)], None, TracingPlan("otel", True)),
        ([Tracing(("otel",), tags=(TAG,)), Tracing(tags=(OTHER,))], None, TracingPlan("otel", tags=(OTHER,))),
        ([Tracing(("otel",), tags=(TAG,)), Tracing()], None, TracingPlan("otel", tags=(TAG,))),
        ([Tracing(("otel",), Mode.CLIENT)], None, TracingPlan()),
        ([Tracing(sampling=5.0)], None, TracingPlan("", False, 5.0)),
        ([Tracing(("otel",), istio_tags=False)], None, TracingPlan("otel", istio_tags=False)),
        ([Tracing(("otel",)), Tracing(hidden=True)], None, TracingPlan("otel", hidden=True)),
        ([Tracing(hidden=True), Tracing(hidden=False)], None, TracingPlan()),
        (
            [Tracing(("otel",))],
            MeshDefaults(spans=TracingDefaults(percent=7.0, tags=(TAG,))),
            TracingPlan("otel", False, 7.0, (TAG,)),
        ),
    ],
)
def test_tracing(levels: list[Tracing], defaults: MeshDefaults | None, plan: TracingPlan | None) -> None:
    assert traced(*levels, defaults=defaults) == plan
