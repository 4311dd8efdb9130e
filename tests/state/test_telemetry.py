"""Telemetry is read strictly: every wrong thing is found, at its field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ztunnel.model.mesh_defaults import CustomTag, TagSource
from ztunnel.model.telemetry import AccessLogging, MetricOverride, Metrics, Mode, TagOverride, Tracing
from ztunnel.state.manifest import Notes, compose
from ztunnel.state.telemetry import Telemetry, read_telemetry


def read(spec: Any) -> tuple[Telemetry, list[tuple[str, str]]]:
    notes = Notes()
    text = json.dumps({"metadata": {"name": "a", "namespace": "n"}, "spec": spec})
    root = compose(text, notes)
    assert root is not None
    found = read_telemetry(root)
    return found, [(fault.field, fault.message) for fault in notes.faults]


def test_everything_is_read() -> None:
    found, faults = read(
        {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}],
            "accessLogging": [
                {
                    "providers": [{"name": "envoy"}, {"name": "otel"}],
                    "match": {"mode": "SERVER"},
                    "disabled": False,
                    "filter": {"expression": "response.code >= 400 || connection.mtls"},
                },
                {"disabled": True},
            ],
            "metrics": [
                {
                    "providers": [{"name": "prometheus"}],
                    "reportingInterval": "10s",
                    "overrides": [
                        {
                            "match": {"metric": "REQUEST_COUNT", "mode": "CLIENT_AND_SERVER"},
                            "tagOverrides": {
                                "request_host": {"value": "request.host"},
                                "source_app": {"operation": "REMOVE"},
                            },
                        },
                        {"match": {"mode": "CLIENT"}, "disabled": True},
                        {"match": {"customMetric": "mine"}, "disabled": True},
                    ],
                }
            ],
            "tracing": [
                {
                    "providers": [{"name": "zipkin"}],
                    "match": {"mode": "CLIENT_AND_SERVER"},
                    "randomSamplingPercentage": 12.5,
                    "disableSpanReporting": False,
                    "customTags": {
                        "a": {"literal": {"value": "1"}},
                        "b": {"environment": {"name": "HOME", "defaultValue": "/"}},
                        "c": {"header": {"name": "X-User", "defaultValue": "nobody"}},
                        "d": {"formatter": {"value": "%REQ(x-a)%-%RESPONSE_CODE%"}},
                    },
                    "useRequestIdForTraceSampling": False,
                    "enableIstioTags": False,
                    "disableContextPropagation": True,
                }
            ],
        }
    )
    assert faults == []
    assert found.targets == ("Gateway waypoint",)
    assert not found.is_wide
    assert found.access_logging == (
        AccessLogging(("envoy", "otel"), Mode.SERVER, False, "response.code >= 400 || connection.mtls"),
        AccessLogging(disabled=True),
    )
    assert found.metrics == (
        Metrics(
            ("prometheus",),
            (
                MetricOverride(
                    "REQUEST_COUNT",
                    tags=(TagOverride("request_host", value="request.host"), TagOverride("source_app", True)),
                ),
                MetricOverride(mode=Mode.CLIENT, disabled=True),
            ),
        ),
    )
    assert (found.custom_metrics, found.interval) == (("mine",), True)
    assert found.tracing == (
        Tracing(
            ("zipkin",),
            Mode.BOTH,
            12.5,
            False,
            (
                CustomTag("a", TagSource.LITERAL, "1"),
                CustomTag("b", TagSource.ENVIRONMENT, "HOME", "/"),
                CustomTag("c", TagSource.HEADER, "X-User", "nobody"),
                CustomTag("d", TagSource.FORMATTER, "%REQ(x-a)%-%RESPONSE_CODE%"),
            ),
            False,
            False,
            True,
        ),
    )


def test_an_empty_one_is_for_all_of_its_namespace() -> None:
    assert read(None) == read({})
    assert read({})[0].is_wide
    assert not read({"selector": {"matchLabels": {"app": "a"}}})[0].is_wide


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        ({"acessLogging": []}, "spec.acessLogging", "did you mean accessLogging?"),
        (
            {"selector": {"matchLabels": {"a": "b"}}, "targetRefs": [{"kind": "Gateway", "name": "w"}]},
            "spec",
            "selector and targetRefs exclude each other",
        ),
        ({"accessLogging": [{"provider": "envoy"}]}, "spec.accessLogging[0].provider", "providers"),
        ({"accessLogging": [{"providers": [{}]}]}, "spec.accessLogging[0].providers[0]", "name is needed"),
        ({"accessLogging": [{"match": {"mode": "BOTH"}}]}, "spec.accessLogging[0].match.mode", "one of"),
        ({"accessLogging": [{"match": {"metric": "x"}}]}, "spec.accessLogging[0].match.metric", "unknown"),
        (
            {"accessLogging": [{"filter": {"expression": "response.cod >= 400"}}]},
            "spec.accessLogging[0].filter.expression",
            "the attribute response.cod is not known here",
        ),
        (
            {"accessLogging": [{"filter": {"expression": "request.headers.exists(h, true)"}}]},
            "spec.accessLogging[0].filter.expression",
            "exists() is not known here",
        ),
        ({"metrics": [{"overrides": [{"match": {"metric": "X"}}]}]},
         "spec.metrics[0].overrides[0].match.metric", "must be one of ALL_METRICS, REQUEST_COUNT"),
        ({"metrics": [{"overrides": [{"match": {"metric": "REQUEST_SIZE", "customMetric": "x"}}]}]},
         "spec.metrics[0].overrides[0].match", "exclude each other"),
        ({"metrics": [{"overrides": [{"tagOverrides": {"a": {}}}]}]},
         "spec.metrics[0].overrides[0].tagOverrides.a", "value is needed"),
        ({"metrics": [{"overrides": [{"tagOverrides": {"a": {"operation": "REMOVE", "value": "'x'"}}}]}]},
         "spec.metrics[0].overrides[0].tagOverrides.a", "with the operation REMOVE there is none"),
        ({"metrics": [{"overrides": [{"tagOverrides": {"a-b": {"value": "'x'"}}}]}]},
         "spec.metrics[0].overrides[0].tagOverrides.a-b", "not the name of a label"),
        ({"metrics": [{"overrides": [{"tagOverrides": {"a": {"value": "request.host +"}}}]}]},
         "spec.metrics[0].overrides[0].tagOverrides.a.value", "a value is missing"),
        ({"metrics": [{"overrides": [{"tagOverrides": {"a": {"operation": "ADD"}}}]}]},
         "spec.metrics[0].overrides[0].tagOverrides.a.operation", "one of UPSERT, REMOVE"),
        ({"tracing": [{}, {}]}, "spec", "more than one entry is not supported"),
        ({"tracing": [{"providers": [{"name": "a"}, {"name": "b"}]}]}, "spec.tracing[0]", "more than one"),
        ({"tracing": [{"randomSamplingPercentage": 101}]},
         "spec.tracing[0].randomSamplingPercentage", "from 0 to 100"),
        ({"tracing": [{"customTags": {"a": {}}}]}, "spec.tracing[0].customTags.a", "one of literal"),
        ({"tracing": [{"customTags": {"a": {"literal": {}}}}]},
         "spec.tracing[0].customTags.a.literal", "value is needed"),
        ({"tracing": [{"customTags": {"a": {"header": {"name": "a b"}}}}]},
         "spec.tracing[0].customTags.a.header", "name of a header"),
        ({"tracing": [{"customTags": {"a": {"formatter": {"value": "%NOTHING%"}}}}]},
         "spec.tracing[0].customTags.a.formatter.value", "%NOTHING% is not known here"),
        ({"tracing": [{"customTags": {"a": {"literal": {"value": "1"}, "header": {"name": "x"}}}}]},
         "spec.tracing[0].customTags.a", "one of literal"),
        ({"accessLogging": [{}] * 65}, "spec", "accessLogging: more than 64 entries"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_at_its_field(spec: Any, field: str, said: str) -> None:
    _, faults = read(spec)
    assert [where for where, what in faults if said in what] == [field], faults
