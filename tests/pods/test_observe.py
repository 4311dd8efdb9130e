"""Connections that are older than a pod's enrolment are told from those that we carry."""

from __future__ import annotations

import subprocess

import pytest

from tests.kernel.lab import Kernel, Lab
from ztunnel.pods.observe import outside_connections

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def another(lab: Lab, host: str, port: int) -> subprocess.Popen[str]:
    """A process of its own that connects from pod `a`, says its port, and stays until its input ends."""
    code = (
        f"import socket,sys; s=socket.create_connection(('{host}',{port})); "
        "print(s.getsockname()[1],flush=True); sys.stdin.read()"
    )
    command = ["ip", "netns", "exec", lab.names["a"], "python3", "-c", code]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3"])
def test_what_others_have_opened_is_outside_and_what_we_carry_is_not(kernel: Kernel, host: str) -> None:
    lab = kernel.lab
    app = kernel.listen(lab.b)
    with another(lab, host, app.getsockname()[1]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        kernel.connect(lab.a, host, app.getsockname()[1])  # ours
        assert len(outside_connections(kernel.redirection, lab.pod("a"))) == 1
        assert process.stdin is not None
        process.stdin.close()


def test_a_pod_without_connections_has_none(kernel: Kernel) -> None:
    assert outside_connections(kernel.redirection, kernel.lab.pod("a")) == frozenset()


def test_a_call_of_the_pod_to_itself_is_not_outside(kernel: Kernel) -> None:
    app = kernel.listen(kernel.lab.a)
    with another(kernel.lab, "10.77.0.2", app.getsockname()[1]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert outside_connections(kernel.redirection, kernel.lab.pod("a")) == frozenset()
        assert process.stdin is not None
        process.stdin.close()
