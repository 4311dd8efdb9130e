from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.lab import Lab, wait_until
from ztunnel.kernel.processes import began, holder, named, since_boot

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


@pytest.fixture
def kubelet(lab: Lab, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of that name in the namespace of pod `a`."""
    shutil.copy("/bin/sleep", tmp_path / "kubelet")
    words = ["nsenter", f"--net=/run/netns/{lab.names['a']}", str(tmp_path / "kubelet"), "99"]
    with subprocess.Popen(words) as process:
        wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "kubelet\n")
        yield process
        process.kill()


def test_processes_of_root_are_found_by_name_and_namespace(lab: Lab, kubelet) -> None:
    assert named({"kubelet", "crio"}, lab.a.inode) == {kubelet.pid}
    assert named({"crio"}, lab.a.inode) == frozenset()
    assert kubelet.pid not in named({"kubelet"}, lab.b.inode)
    kubelet.kill()
    kubelet.wait()
    assert named({"kubelet"}, lab.a.inode) == frozenset()


def test_what_an_ordinary_user_calls_kubelet_is_not_the_kubelet(lab: Lab, tmp_path: Path) -> None:
    shutil.copy("/bin/sleep", tmp_path / "kubelet")
    for place in (tmp_path, *tmp_path.parents[:-2]):
        place.chmod(0o755)
    words = [
        "nsenter",
        f"--net=/run/netns/{lab.names['a']}",
        "--setuid=1000",
        str(tmp_path / "kubelet"),
        "99",
    ]
    with subprocess.Popen(words) as process:
        wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "kubelet\n")
        assert named({"kubelet"}, lab.a.inode) == frozenset()
        process.kill()


def test_a_namespace_that_is_not_there_has_nobody() -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert holder("/run/netns/no-such", 80) == ""
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_began_when_the_kernel_says() -> None:
    before = since_boot()
    with subprocess.Popen(["sleep", "9"]) as process:
        place = f"/proc/{process.pid}/ns/net"
        first = began(place)
        assert before - 0.011 <= first <= since_boot()
        assert began(place) == first
        assert began(f"/proc/{os.getpid()}/stat") <= first
        process.kill()
    assert began(place) >= first  # the moment in which it was seen to have ended
