"""Every refusal names what was asked, and what would help."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztunnel.kube.failure import ApiFailure, Request, failure_in_stream, refused, unanswered
from ztunnel.kube.resource import CONFIG_MAPS, ENDPOINT_SLICES, PODS

LIST = Request("list", PODS)
CREATE = Request("create", CONFIG_MAPS, "shop", "a")
STATUS = Request("patch", ENDPOINT_SLICES, "shop", "a", "status")


def status(code, reason="", message="", **details):
    return json.dumps(
        {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}
    ).encode()


@pytest.mark.parametrize(
    ("request_", "code", "body", "words"),
    [
        (LIST, 403, status(403, "Forbidden", "no"), "not allowed to list pods; needs RBAC: list pods: no"),
        (
            STATUS, 403, status(403),
            "not allowed to patch endpointslices.discovery.k8s.io/status a in namespace shop; "
            "needs RBAC: patch endpointslices.discovery.k8s.io/status in namespace shop",
        ),
        (
            LIST, 403, status(403, "Forbidden", 'pods is forbidden: User "a" cannot list resource "pods"'),
            "not allowed to list pods; needs RBAC: list pods: "
            'pods is forbidden: User "a" cannot list resource "pods"',
        ),
        (
            CREATE, 403, status(403, "Forbidden", 'configmaps "a" is forbidden: exceeded quota: q'),
            "refused by the cluster's admission: create configmaps a in namespace shop: "
            'configmaps "a" is forbidden: exceeded quota: q',
        ),
        (
            CREATE, 403, status(403, "", 'admission webhook "x.example" denied the request: no'),
            "refused by the cluster's admission: create configmaps a in namespace shop: "
            'admission webhook "x.example" denied the request: no',
        ),
        (
            LIST, 401, b"",
            "not known to the API server (list pods): the token or certificate is wrong or has expired",
        ),
        (LIST, 429, b"", "the API server asks for patience (list pods)"),
        (LIST, 500, status(500, "", "db\n is  gone"), "the API server answers 500 (list pods): db is gone"),
        (LIST, 502, b"<html>\xff", "the API server answers 502 (list pods): <html>\ufffd"),
        (LIST, 404, b"404 page not found\n", "not there: list pods: 404 page not found"),
    ],
)  # fmt: skip
def test_a_refusal_is_said_in_plain_words(request_, code, body, words):
    failure = refused(request_, code, body, {})
    assert (str(failure), failure.code) == (words, code)


def test_a_missing_permission_is_told_apart():
    assert refused(LIST, 403, b"", {}).rule == "list pods"
    assert refused(LIST, 500, b"", {}).rule == ""
    quota = status(403, "Forbidden", 'configmaps "a" is forbidden: exceeded quota: q')
    assert refused(CREATE, 403, quota, {}).rule == ""


@pytest.mark.parametrize(
    ("header", "body", "seconds"),
    [
        ({"retry-after": "7"}, b"", 7.0),
        ({}, status(429, retryAfterSeconds=3), 3.0),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, b"", None),
        ({"retry-after": "99999999999999999999"}, b"", 300.0),
        ({"retry-after": "-1"}, b"", None),
        ({"retry-after": "²"}, b"", None),
        ({}, b"", None),
    ],
)
def test_patience_is_bounded(header, body, seconds):
    assert refused(LIST, 429, body, header).retry_seconds == seconds


def test_expiry_and_versions_ahead_are_told_apart():
    assert refused(LIST, 410, b"", {}).expired
    assert failure_in_stream(LIST, {"code": 410, "reason": "Gone"}).expired
    assert refused(
        LIST, 504, status(504, "Timeout", "Timeout: Too large resource version: 9, current: 1"), {}
    ).ahead
    assert not refused(LIST, 504, b"", {}).ahead


def test_no_answer_names_the_server_and_the_connections_own_words():
    try:
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError as below:
            raise RuntimeError("All connection attempts failed") from below
    except RuntimeError as error:
        failure = unanswered(LIST, "https://api:6443", error)
    assert str(failure) == "no answer from the API server https://api:6443 (list pods): Connection refused"
    assert "TimeoutError" in str(unanswered(LIST, "x", TimeoutError()))


VALUES = st.none() | st.integers(-9, 9**30) | st.text(max_size=5) | st.just({"retryAfterSeconds": []})
STATUSES = st.fixed_dictionaries(
    {"kind": st.just("Status")}, optional=dict.fromkeys(["message", "details", "reason"], VALUES)
)


@settings(max_examples=40)
@given(
    st.integers(100, 999), st.binary(max_size=200) | STATUSES.map(lambda value: json.dumps(value).encode())
)
def test_any_answer_gives_a_failure(code, body):
    failure = refused(LIST, code, body, {})
    assert isinstance(failure, ApiFailure)
    assert "\n" not in str(failure)
    assert len(str(failure)) < 600
