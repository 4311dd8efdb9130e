"""What README tells to type is typed here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ztunnel.demo import run
from ztunnel.demo.operate import Laboratory

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

README = (Path(__file__).parents[1] / "README.md").read_text()


def block(mark: str) -> str:
    """The block of code with a line that begins so."""
    (found,) = [each for each in re.findall(r"^```\n(.*?)^```$", README, re.M | re.S) if f"\n{mark}" in each]
    return str(found)


@pytest.fixture
def plain() -> Iterator[Laboratory]:
    with Laboratory(f"r{os.getpid()}") as laboratory:
        laboratory.up(start_nodes=False)
        yield laboratory


def start(laboratory: Laboratory, commands: str) -> subprocess.Popen[str]:
    name = laboratory.names.lab
    commands = re.sub(r"(zt-|ztunnel-|/ztunnel/)lab\b", rf"\g<1>{name}", commands)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        ["bash", "-ec", commands], stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment
    )


def test_a_node_proxy_is_started_by_hand_as_readme_says(plain: Laboratory) -> None:
    with start(plain, block("exec nsenter")) as process:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if "\tready\t" in line:
                break
        else:
            pytest.fail("".join(seen))
        assert run.processes(plain.names.proxy_cgroup("node-1")) == [process.pid]
        states = {
            pod.name: pod.enrolled for pod in plain.survey().pods if pod.node == "node-1" and pod.wanted
        }
        assert states == {"frontend-1": True, "load": True, "orders-1": True}
        for ip in plain.pod("orders-1").addresses:
            url = f"http://[{ip}]:8080/" if ip.version == 6 else f"http://{ip}:8080/"
            assert '"orders-1"' in plain.exec("load", ["curl", "-sS", "-m", "3", url]).stdout
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait() == 0, rest
        assert 'dst.workload="orders-1"' in rest


def test_ip_netns_exec_hides_what_a_proxy_needs(plain: Laboratory) -> None:
    commands = re.sub(r"nsenter --net=/run/netns/(\S+)", r"ip netns exec \1", block("exec nsenter"))
    with start(plain, commands) as process:
        said = process.communicate()[0]
    assert process.returncode == 1
    assert "cgroup v2 is not mounted" in said
