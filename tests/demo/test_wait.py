import json
import subprocess
import time
from ipaddress import ip_address

import pytest

from ztunnel.demo import run, wait
from ztunnel.demo.cluster import Node, Pod
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.operate import Laboratory

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_a_proxy_that_ends_is_reported_with_the_end_of_its_log(plain: Laboratory) -> None:
    log = plain.names.node_directory("node-1") / "log"
    log.parent.mkdir(parents=True)
    log.write_text("first\n" * 20 + "the reason\n")
    with subprocess.Popen(["false"]) as process, pytest.raises(LaboratoryFailed) as caught:
        wait.until_ready(plain.names, [(Node("node-1", 1), process)])
    assert str(caught.value).startswith("the proxy of node-1 ended with 1; its log ends:\nfirst\n")
    assert str(caught.value).endswith("the reason")


def test_a_proxy_that_answers_is_ready(plain: Laboratory) -> None:
    serve = (
        "import http.server\n"
        "class Ready(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(200 if 'ready' in self.path else 404); self.end_headers()\n"
        "http.server.HTTPServer(('', 15021), Ready).serve_forever()\n"
    )
    cgroup = plain.names.proxy_cgroup("node-1")
    join = 'echo 0 > "$0/cgroup.procs"; exec nsenter --net="$1" python3 -c "$2"'
    command = ["sh", "-c", join, cgroup, plain.names.netns(plain.names.node("node-1")), serve]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        wait.until_ready(plain.names, [(Node("node-1", 1), process)])
        assert plain.survey().nodes[0].proxy == "ready"
        plain.kill_node("node-1")
        assert run.processes(cgroup) == []


@pytest.mark.parametrize(
    ("state", "known"),
    [
        ({"state": "Up", "addresses": ["10.244.1.2"]}, True),
        ({"state": "Pending", "reason": "x"}, True),
        ({"state": "Up", "addresses": ["10.244.1.9"]}, False),  # the one before it
        ({}, False),
    ],
)
def test_a_pod_is_waited_for_until_its_node_knows_it(plain: Laboratory, state: dict, known: bool) -> None:
    dump = json.dumps({"workloadState": {"Kubernetes//Pod/shop/a": state} if state else {}})
    serve = (
        "import http.server\n"
        "class Dump(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        f"        self.send_response(200); self.end_headers(); self.wfile.write({dump.encode()!r})\n"
        "http.server.HTTPServer(('127.0.0.1', 15000), Dump).serve_forever()\n"
    )
    node = Node("node-1", 1)
    pod = Pod("shop", "a", "uid", node, (ip_address("10.244.1.2"),), (), {}, {})
    begun = time.monotonic()
    wait.until_known(plain.names, [pod])  # no proxy runs
    assert time.monotonic() - begun < 1
    cgroup = plain.names.proxy_cgroup("node-1")
    join = 'echo 0 > "$0/cgroup.procs"; exec nsenter --net="$1" python3 -c "$2"'
    command = ["sh", "-c", join, cgroup, plain.names.netns(plain.names.node("node-1")), serve]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL):
        while not run.processes(cgroup):
            assert time.monotonic() - begun < 20
        begun = time.monotonic()
        wait.until_known(plain.names, [pod])
        assert (time.monotonic() - begun < wait.KNOWN_SECONDS) is known
        plain.kill_node("node-1")
