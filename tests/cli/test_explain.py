"""`ztunnel explain`: exit status, formats, what it says where it cannot tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.analyze.test_load import REPOSITORY, written
from ztunnel.cli.main import main

DENY = """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {ports: ["8080"]}}]}]}
"""


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["explain", *map(str, words)])


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return written(tmp_path, shop=REPOSITORY)


def test_an_allowed_call_is_0_and_a_refused_one_is_1_with_its_policy(shop: Path) -> None:
    found = call("shop/web", "web:80", "-f", shop)
    assert found.exit_code == 0
    assert "Allowed: no policy concerns it." in found.output
    written(shop, deny=DENY)
    found = call("shop/web", "web:80", "-f", shop)
    assert found.exit_code == 1
    assert "DENY    shop/closed  matches, and decides: rule 1 matches" in found.output


def test_formats_say_the_same(shop: Path) -> None:
    as_json = json.loads(call("shop/web", "web:80", "-f", shop, "-o", "json").output)
    as_yaml = yaml.safe_load(call("shop/web", "web:80", "-f", shop, "-o", "yaml").output)
    assert as_json == as_yaml
    assert as_json["allowed"] is True
    assert "text" not in as_json


def test_what_cannot_be_told_is_2(shop: Path) -> None:
    found = call("shop/web", "wep:80", "-f", shop)
    assert found.exit_code == 2
    assert "no service and no pod 'wep'; there are: web.shop" in found.output
    assert "no laboratory of this name runs" in call("a", "b:1", "--name", "nosuchlab").output


def test_faults_are_told_and_the_rest_counts(shop: Path) -> None:
    written(shop, wrong="apiVersion: v1\nkind: Service\nmetadata: {name: [1]}\n")
    found = call("shop/web", "web:80", "-f", shop)
    assert found.exit_code == 0
    assert "wrong.yaml:3" in found.output


def test_a_node_proxy_that_is_not_there_is_named() -> None:
    found = call("a/b", "c:1", "--admin", "127.0.0.1:1")
    assert found.exit_code == 2
    assert "127.0.0.1:1: " in found.output
    assert "refused" in found.output


@contextmanager
def page(answer: Callable[[str], tuple[int, str]]) -> Iterator[str]:
    """A server that answers each path with a status and a body; its address."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Silent."""

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_node_proxy_is_asked() -> None:
    def answer(path: str) -> tuple[int, str]:
        known = "from=a%2Fb" in path
        return (200, json.dumps({"allowed": True, "text": "lines"})) if known else (404, "no pod 'x'\n")

    with page(answer) as address:
        assert call("a/b", "c:1", "--admin", address).output == "lines\n"
        missing = call("x", "c:1", "--admin", address)
    assert missing.exit_code == 2
    assert "no pod 'x'" in missing.output
    with page(lambda path: (200, "<html>")) as address:
        assert "no explanation came" in call("a/b", "c:1", "--admin", address).output
