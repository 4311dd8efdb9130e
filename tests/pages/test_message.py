"""Requests, routes, and who may ask."""

from __future__ import annotations

import pytest

from ztunnel.pages.message import (
    LOOPBACK_HOSTS,
    Request,
    Response,
    Route,
    host_of,
    may_ask,
    parse_target,
    router,
    text,
)


async def ok(request: Request) -> Response:
    return text(200, f"{request.method} {request.path}")


ROUTES = {"/a": Route(("GET",), ok), "/b": Route(("POST",), ok), "/c": Route(("GET", "POST"), ok)}


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/a", 200, None),
        ("HEAD", "/a", 200, None),
        ("POST", "/a", 405, "GET, HEAD"),
        ("GET", "/b", 405, "POST"),
        ("POST", "/b", 200, None),
        ("DELETE", "/c", 405, "GET, POST, HEAD"),
        ("GET", "/d", 404, None),
        ("GET", "/a/", 404, None),
    ],
)
async def test_a_path_and_a_method_choose_the_page(method, path, status, allow):
    response = await router(ROUTES)(Request(method, path))
    assert response.status == status
    assert dict(response.headers).get("allow") == allow


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", {}),
        ("/logging?level=debug", "/logging", {"level": "debug"}),
        ("/logging?reset", "/logging", {"reset": ""}),
        ("/a?x=1&x=2&y=%3D", "/a", {"x": "2", "y": "="}),
    ],
)
def test_a_target_is_a_path_and_parameters(target, path, query):
    assert parse_target(target) == (path, query)


@pytest.mark.parametrize(
    "target", ["*", "http://host/", "host:80", "", "/?" + "&".join("abcdefghijklmnopqrstuvwxyzABCDEFGH")]
)
def test_other_targets_are_refused(target):
    with pytest.raises(ValueError, match=r"."):
        parse_target(target)


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("localhost", "localhost"),
        ("LOCALHOST:15000", "localhost"),
        ("[::1]:15000", "[::1]"),
        ("[::1]", "[::1]"),
        ("", ""),
    ],
)
def test_a_host_is_named_without_its_port(header, host):
    assert host_of(header) == host


@pytest.mark.parametrize(
    ("headers", "may"),
    [
        ({"host": "localhost:15000"}, True),
        ({"host": "127.0.0.1:15000"}, True),
        ({"host": "[::1]:15000"}, True),
        ({"host": "rebound.example:15000"}, False),
        ({"host": "localhost.evil.example"}, False),
        ({"host": "localhost, evil"}, False),
        ({}, False),
        ({"host": "localhost", "origin": "http://localhost:8080"}, True),
        ({"host": "localhost", "origin": "https://evil.example"}, False),
        ({"host": "localhost", "origin": "null"}, False),
        ({"host": "localhost", "origin": "http://localhost@evil.example"}, False),
    ],
)
def test_a_page_for_this_machine_answers_only_to_its_own_names(headers, may):
    assert may_ask(Request("GET", "/", {}, headers), LOOPBACK_HOSTS) is may
    assert may_ask(Request("GET", "/", {}, headers), None)
