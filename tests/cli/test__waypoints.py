"""`ztunnel waypoint apply`, `list`, `status`, `delete` and `generate` against an API server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx2
import pytest
import trio
import yaml
from click.testing import CliRunner, Result

from tests.kube.fake import FakeServer
from ztunnel.cli.main import main
from ztunnel.kube.resource import GATEWAYS, NAMESPACES, PODS, SERVICE_ENTRIES, SERVICES

pytestmark = pytest.mark.timeout(30)

Run = Callable[..., Result]


@contextmanager
def served(server: FakeServer) -> Iterator[str]:
    """Its URL."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = httpx2.Request(
                self.command, f"https://fake{self.path}", content=body, headers=dict(self.headers)
            )
            response = trio.run(server.handle_async_request, request)
            self.send_response(response.status_code)
            self.send_header("Content-Length", str(len(response.content)))
            self.end_headers()
            self.wfile.write(response.content)

        do_GET = do_PATCH = do_DELETE = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=http.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture
def server() -> FakeServer:
    made = FakeServer(NAMESPACES, GATEWAYS, SERVICES, PODS, SERVICE_ENTRIES)  # of all kinds but one
    made.put(NAMESPACES, {"metadata": {"name": "shop", "labels": {"istio.io/dataplane-mode": "ambient"}}})
    return made


@pytest.fixture
def run(server: FakeServer, tmp_path: Path) -> Iterator[Run]:
    with served(server) as url:
        config = {
            "current-context": "c",
            "users": [{"name": "u", "user": {}}],
            # Without the system's certificates, which take longer to load than all the rest.
            "clusters": [{"name": "c", "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(config))

        def invoke(*words: str) -> Result:
            return CliRunner().invoke(main, ["waypoint", *words], env={"KUBECONFIG": str(path)})

        yield invoke


def gateways(server: FakeServer) -> dict[tuple[str, str], dict]:
    return server.objects[GATEWAYS.path()]


def programme(server: FakeServer, name: str, namespace: str = "shop") -> None:
    found = gateways(server)[namespace, name]
    condition = {"type": "Programmed", "status": "True", "reason": "Programmed", "observedGeneration": 1}
    meta = {**found["metadata"], "generation": 1}
    server.put(GATEWAYS, {**found, "metadata": meta, "status": {"conditions": [condition]}})


def test_one_is_applied_listed_and_deleted(run: Run, server: FakeServer) -> None:
    assert run("list", "-n", "shop").output == "No waypoints found.\n"
    assert run("apply", "-n", "shop", "--for", "all").output == "waypoint shop/waypoint applied\n"
    made = gateways(server)["shop", "waypoint"]
    assert made["spec"]["gatewayClassName"] == "ztunnel-waypoint"
    assert made["metadata"]["labels"] == {"istio.io/waypoint-for": "all"}
    assert run("status", "--namespace", "shop").exit_code == 1
    programme(server, "waypoint")
    found = run("status", "waypoint", "-n", "shop", "-o", "json")
    assert (found.exit_code, json.loads(found.output)[0]["programmed"]) == (0, "True")
    assert "waypoint" in run("list", "-A").output
    assert yaml.safe_load(run("list", "-n", "shop", "-o", "yaml").output)[0]["traffic"] == "all"
    found = run("delete", "waypoint", "none", "-n", "shop")
    assert found.exit_code == 1
    assert "waypoint shop/waypoint deleted" in found.output
    assert "waypoint shop/none not found" in found.output
    assert gateways(server) == {}


def test_a_namespace_is_labelled_with_it(run: Run, server: FakeServer) -> None:
    assert run("apply", "-n", "shop", "--name", "wp", "--enroll-namespace").exit_code == 0
    labels = server.objects[NAMESPACES.path()]["", "shop"]["metadata"]["labels"]
    assert labels == {"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "wp"}
    found = run("apply", "-n", "shop", "--name", "other", "--enroll-namespace")
    assert found.exit_code == 1
    assert "--overwrite replaces it" in found.output
    assert ("shop", "other") not in gateways(server)
    assert run("apply", "-n", "shop", "--name", "other", "--enroll-namespace", "--overwrite").exit_code == 0


def test_one_that_labels_name_is_not_deleted_unless_that_is_forced(run: Run, server: FakeServer) -> None:
    run("apply", "-n", "shop", "--enroll-namespace")
    found = run("delete", "--all", "-n", "shop")
    assert found.exit_code == 1
    assert "namespace shop: istio.io/use-waypoint names it" in found.output
    assert "--force" in found.output
    assert ("shop", "waypoint") in gateways(server)
    assert run("delete", "--all", "-n", "shop", "--force").exit_code == 0
    assert gateways(server) == {}


def test_one_that_an_entry_names_is_not_deleted_either(run: Run, server: FakeServer) -> None:
    """Its calls would be refused."""
    run("apply", "-n", "shop")
    labels = {"istio.io/use-waypoint": "waypoint", "istio.io/use-waypoint-namespace": "shop"}
    server.put(SERVICE_ENTRIES, {"metadata": {"name": "e", "namespace": "far", "labels": labels}, "spec": {}})
    found = run("delete", "waypoint", "-n", "shop")
    assert (found.exit_code, ("shop", "waypoint") in gateways(server)) == (1, True)
    assert "serviceentry far/e: istio.io/use-waypoint names it" in found.output
    server.remove(SERVICE_ENTRIES, "e", "far")
    assert run("delete", "waypoint", "-n", "shop").exit_code == 0


def test_what_does_not_become_ready_in_time_is_said_with_the_reason(run: Run, server: FakeServer) -> None:
    found = run("apply", "-n", "shop", "--wait", "--waypoint-timeout", "0.5")
    assert found.exit_code == 1
    assert "waypoint shop/waypoint is not ready after" in found.output
    programme(server, "waypoint")
    found = run("apply", "-n", "shop", "--wait", "--waypoint-timeout", "0.5")
    assert found.output.splitlines() == ["waypoint shop/waypoint applied", "waypoint shop/waypoint is ready"]


def test_a_gateway_of_another_class_is_not_taken_over(run: Run, server: FakeServer) -> None:
    meta = {"name": "waypoint", "namespace": "shop"}
    server.put(GATEWAYS, {"metadata": meta, "spec": {"gatewayClassName": "istio"}})
    found = run("apply", "-n", "shop")
    assert (found.exit_code, "of the class istio" in found.output) == (1, True)
    assert gateways(server)["shop", "waypoint"]["spec"] == {"gatewayClassName": "istio"}


@pytest.mark.parametrize("words", [["delete"], ["delete", "a", "--all"], ["apply", "--for", "some"]])
def test_what_makes_no_sense_is_refused(run: Run, words: list[str]) -> None:
    assert run(*words).exit_code == 2


def test_a_namespace_that_is_not_there_is_one_sentence(run: Run) -> None:
    found = run("apply", "-n", "none", "--enroll-namespace")
    assert (found.exit_code, found.output.count("\n")) == (1, 1)
    assert "none" in found.output


def test_one_is_printed_without_a_cluster() -> None:
    found = CliRunner().invoke(
        main, ["waypoint", "generate", "--name", "wp", "-n", "shop", "--revision", "r"]
    )
    made = yaml.safe_load(found.output)
    assert (made["kind"], made["metadata"]["labels"]) == ("Gateway", {"istio.io/rev": "r"})
