from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.lab import Lab
from ztunnel.kernel.processes import holder

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

LISTEN = (
    "import socket,sys; s=socket.create_server(('{}',0),family={}); "
    "print(s.getsockname()[1],flush=True); sys.stdin.read()"
)


@pytest.mark.parametrize(("host", "family"), [("0.0.0.0", 2), ("127.0.0.1", 2), ("::", 10), ("::1", 10)])
def test_the_process_that_listens_is_named(lab: Lab, host, family) -> None:
    words = ["ip", "netns", "exec", lab.names["a"], sys.executable, "-c", LISTEN.format(host, family)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        port = int(process.stdout.readline())
        comm = Path(f"/proc/{process.pid}/comm").read_text().strip()
        path = f"/run/netns/{lab.names['a']}"
        assert holder(path, port) == f"{comm} (pid {process.pid})"
        assert holder(f"/run/netns/{lab.names['b']}", port) == ""
        process.stdin.close()
    assert holder(path, port) == ""


def test_a_socket_of_a_process_elsewhere_is_nobodys(lab: Lab) -> None:
    with lab.a.socket(2, 1) as ours:  # of this process, which is in another namespace
        ours.bind(("10.77.0.2", 0))
        ours.listen()
        assert holder(f"/run/netns/{lab.names['a']}", ours.getsockname()[1]) == ""


def test_a_namespace_that_is_not_there_has_nobody() -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert holder("/run/netns/no-such", 80) == ""
    assert len(os.listdir("/proc/self/fd")) == before
