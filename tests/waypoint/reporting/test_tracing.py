"""The span of a request, and what servers are told of it."""

from __future__ import annotations

from random import Random

import pytest

from tests.telemetry.records import changed
from tests.telemetry.test_request_log import FULL
from ztunnel.l7.policy.rule import Tried
from ztunnel.l7.request import Request
from ztunnel.l7.trace import Context, enter
from ztunnel.model.http_policy import HttpAction
from ztunnel.model.mesh_defaults import CustomTag, TagSource
from ztunnel.telemetry.request_counts import RequestLabels
from ztunnel.waypoint.reporting.scope import Scope
from ztunnel.waypoint.reporting.tracing import span_of, span_tags, with_trials
from ztunnel.waypoint.way import Common, HttpWay

ALLOW, DENY = HttpAction.ALLOW, HttpAction.DENY
CONTEXT = Context("4b" * 16, "aa" * 8, "bb" * 8, True)
LABELS = RequestLabels(
    source_workload="caller", source_workload_namespace="shop", destination_workload="server",
    destination_service="web.shop.svc.cluster.local",
)  # fmt: skip


def test_a_span_says_what_the_log_says() -> None:
    span = span_of(FULL, CONTEXT, LABELS)
    assert span[:4] == (*CONTEXT[:3], "web.shop.svc.cluster.local:80/*")
    assert (span.start_ns, span.end_ns) == (FULL.time_ns, FULL.time_ns + 12_300_000)
    said = dict(span.attributes)
    assert said["http.url"] == "http://web:80/a?b"
    assert (said["http.method"], said["http.status_code"], said["response_flags"]) == ("GET", "503", "UF")
    assert (said["peer.address"], said["guid:x-request-id"]) == ("fd00::1", "an-id")
    assert (said["istio.source_workload"], said["istio.destination_workload"]) == ("caller", "server")
    assert "istio.source_app" not in said
    assert span_of(FULL, CONTEXT, RequestLabels()).name == "10.1.0.1:80/*"


@pytest.mark.parametrize(
    ("status", "grpc", "error"),
    [
        (200, "", False),
        (404, "", False),
        (500, "", True),
        (0, "", True),
        (200, "0", False),
        (200, "14", True),
    ],
)
def test_failures_are_errors(status: int, grpc: str, error: bool) -> None:
    assert span_of(changed(FULL, status=status, grpc_status=grpc), CONTEXT, LABELS).is_error is error


def test_tags_of_an_operator_come_of_the_request_and_the_environment() -> None:
    tags = [
        CustomTag("literal", TagSource.LITERAL, "1"),
        CustomTag("variable", TagSource.ENVIRONMENT, "WHERE", "nowhere"),
        CustomTag("missing", TagSource.ENVIRONMENT, "NONE", "nowhere"),
        CustomTag("header", TagSource.HEADER, "x-user", "nobody"),
        CustomTag("no-header", TagSource.HEADER, "x-none", "nobody"),
        CustomTag("formatter", TagSource.FORMATTER, '%REQ(:METHOD)% "%REQ(x-none)%" %RESPONSE_CODE%'),
    ]
    made = span_tags(tags, {"WHERE": "here"})
    record = changed(FULL, request=((b"x-user", b"jason"),))
    plain = span_of(record, CONTEXT, LABELS)
    span = span_of(record, CONTEXT, LABELS, made, istio_tags=False)
    assert dict(span.attributes[-6:]) == {
        "literal": "1", "variable": "here", "missing": "nowhere", "header": "jason", "no-header": "nobody",
        "formatter": 'GET "" 503',
    }  # fmt: skip
    assert [name for name, _ in span.attributes if name.startswith("istio.")] == []
    assert [name for name, _ in plain.attributes if name.startswith("istio.")] != []
    with pytest.raises(ValueError, match="%NO% is not known"):
        span_tags([CustomTag("a", TagSource.FORMATTER, "%NO%")], {})


@pytest.mark.parametrize(
    ("trials", "tags"),
    [
        ([Tried("s/p", True, DENY, "ns[s]-policy[p]-rule[0]")],
         {"deny_policy.name": "ns[s]-policy[p]-rule[0]", "deny_policy.result": "denied"}),
        ([Tried("s/p", False, DENY)], {"deny_policy.result": "allowed"}),
        ([Tried("s/p", False, ALLOW, "a")], {"allow_policy.name": "a", "allow_policy.result": "allowed"}),
        ([Tried("s/p", True, ALLOW)], {"allow_policy.result": "denied"}),
        # Istio asks all of one action together.
        ([Tried("s/p", True, ALLOW), Tried("s/q", False, ALLOW, "b"), Tried("s/r", True, DENY, "c")],
         {"allow_policy.name": "b", "allow_policy.result": "allowed",
          "deny_policy.name": "c", "deny_policy.result": "denied"}),
        ([Tried("s/p", True, HttpAction.CUSTOM, "d")], {}),
    ],
)  # fmt: skip
def test_a_span_tells_what_policies_under_trial_would_do(trials: list[Tried], tags: dict[str, str]) -> None:
    plain = span_of(FULL, CONTEXT, LABELS)
    found = with_trials(plain, trials).attributes[len(plain.attributes) :]
    assert {name.removeprefix("istio.authorization.dry_run."): value for name, value in found} == tags


def test_a_request_is_told_who_calls_and_where_it_is_in_the_trace() -> None:
    rng = Random(1)
    scope = Scope(enter=lambda fields, below: enter(fields, 1.0, rng, below=below))
    common = Common(None, set(), lambda: b"")  # type: ignore[arg-type]
    way = HttpWay(common, None, None, b"By=a;URI=b", scope)  # type: ignore[arg-type]
    request = way.admit(Request(b"GET", b"a", b"/", [(b"x", b"y")]))
    assert request.trace is not None
    assert request.fields[:2] == [(b"x", b"y"), (b"x-forwarded-client-cert", b"By=a;URI=b")]
    assert request.get(b"traceparent").startswith(f"00-{request.trace.trace_id}-".encode())
    plain = HttpWay(Common(None, set(), lambda: b""), None, None)  # type: ignore[arg-type]
    assert plain.admit(Request(b"GET", b"a", b"/", [(b"x", b"y")])).fields == [(b"x", b"y")]
