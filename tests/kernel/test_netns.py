from __future__ import annotations

import errno
import faulthandler
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.lab import unique
from ztunnel.kernel import netns
from ztunnel.kernel.netns import NetworkNamespace

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


@pytest.fixture
def elsewhere() -> Iterator[NetworkNamespace]:
    name = unique()
    subprocess.run(["ip", "netns", "add", name], check=True)
    with NetworkNamespace.open(f"/run/netns/{name}") as namespace:
        yield namespace
    subprocess.run(["ip", "netns", "del", name], check=True)


def here() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def test_a_namespace_knows_its_inode_and_its_cookie(elsewhere: NetworkNamespace) -> None:
    with netns.current() as current:
        assert current.inode == here() != elsewhere.inode
        assert current.cookie != elsewhere.cookie
    with NetworkNamespace.open(elsewhere.path) as again:
        assert (again.cookie, again.inode) == (elsewhere.cookie, elsewhere.inode)


def test_a_socket_lives_in_its_namespace_and_we_do_not(elsewhere: NetworkNamespace) -> None:
    before = here()
    with elsewhere.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        assert here() == before
        assert int.from_bytes(made.getsockopt(socket.SOL_SOCKET, 71, 8), "little") == elsewhere.cookie
        assert not made.get_inheritable()
        assert made.gettimeout() == 0.0


def cookie_of(sock: socket.socket) -> int:
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, 71, 8), sys.byteorder)


def test_sockets_asked_for_quickly_are_made_in_advance_where_they_belong(
    elsewhere: NetworkNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netns.time, "monotonic", lambda: 5.0)
    before = len(os.listdir("/proc/self/fd"))
    made = [elsewhere.tcp_socket(socket.AF_INET) for _ in range(20)]
    made.append(elsewhere.tcp_socket(socket.AF_INET6))
    assert {cookie_of(each) for each in made} == {elsewhere.cookie}
    assert {each.gettimeout() for each in made} == {0.0}
    assert len({each.fileno() for each in made}) == 21
    assert (made[-1].family, made[0].family) == (socket.AF_INET6, socket.AF_INET)
    assert len(os.listdir("/proc/self/fd")) == before + 21 + elsewhere.spares
    for each in made:
        each.close()


def test_sockets_asked_for_now_and_then_are_made_one_by_one(
    elsewhere: NetworkNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(100))
    monkeypatch.setattr(netns.time, "monotonic", lambda: float(next(seconds)))
    for _ in range(5):
        elsewhere.tcp_socket(socket.AF_INET).close()
    assert elsewhere.spares == 0


def test_where_descriptors_run_out_the_one_that_is_asked_for_is_made(
    elsewhere: NetworkNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, left = netns._new_tcp, iter(range(5))

    def made(family: int) -> socket.socket:
        if next(left, None) is None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return make(family)

    monkeypatch.setattr(netns.time, "monotonic", lambda: 5.0)
    monkeypatch.setattr(netns, "_new_tcp", made)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        elsewhere.tcp_socket(socket.AF_INET).close()
    assert elsewhere.spares == 3
    for _ in range(3):
        elsewhere.tcp_socket(socket.AF_INET).close()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(OSError, match="Too many open files"):
        elsewhere.tcp_socket(socket.AF_INET)


def test_what_was_made_in_advance_goes_with_the_namespace() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with netns.current() as here_again:
        for _ in range(2):
            here_again.tcp_socket(socket.AF_INET).close()
        assert here_again.spares
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_error_inside_brings_us_back(elsewhere: NetworkNamespace) -> None:
    before = here()

    def fail_inside() -> None:
        with elsewhere.entered():
            assert here() == elsewhere.inode
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail_inside()
    assert here() == before


def test_the_process_ends_where_there_is_no_way_back(elsewhere: NetworkNamespace) -> None:
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        elsewhere._home = 999999  # as if it had been closed by mistake
        with elsewhere.entered():
            pass
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -6


def test_a_sysctl_is_set_in_the_namespace_alone(elsewhere: NetworkNamespace) -> None:
    elsewhere.write_sysctl("net.ipv4.tcp_fwmark_accept", "1")
    assert elsewhere.read_sysctl("net.ipv4.tcp_fwmark_accept") == "1"
    with netns.current() as current:
        assert current.read_sysctl("net.ipv4.tcp_fwmark_accept") == "0"


WRITE = """
import sys
from pathlib import Path
from ztunnel.kernel import netns
netns._HOST_PROC = Path(sys.argv[2])
with netns.NetworkNamespace.open(sys.argv[1]) as namespace:
    namespace.write_sysctl("net.ipv4.tcp_fwmark_accept", "1")
"""


def in_a_container(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    """/proc/sys is read-only there."""
    mounts = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"'
    inner = ["sh", "-c", mounts, "sh", sys.executable, "-c", script, *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(["unshare", "--mount", *inner], capture_output=True, text=True, env=env)


def test_in_a_container_a_sysctl_is_set_through_the_hosts_proc(elsewhere: NetworkNamespace, tmp_path) -> None:
    done = in_a_container(WRITE, elsewhere.path, tmp_path / "none")
    assert "read-only here: mount the host's /proc at" in done.stderr
    assert elsewhere.read_sysctl("net.ipv4.tcp_fwmark_accept") == "0"
    host = tmp_path / "proc"
    host.mkdir()
    subprocess.run(["mount", "-t", "proc", "none", str(host)], check=True)
    try:
        done = in_a_container(WRITE, elsewhere.path, host)
    finally:
        subprocess.run(["umount", str(host)], check=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert elsewhere.read_sysctl("net.ipv4.tcp_fwmark_accept") == "1"
    with netns.current() as current:
        assert current.read_sysctl("net.ipv4.tcp_fwmark_accept") == "0"


def test_what_is_no_namespace_is_refused_and_nothing_stays_open(tmp_path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="setns"):
        NetworkNamespace.open("/dev/null")
    with pytest.raises(FileNotFoundError):
        NetworkNamespace.open(tmp_path / "none")
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_it_speaks_ipv6_with_itself_unless_that_is_off(
    elsewhere: NetworkNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert elsewhere.has_ipv6()
    elsewhere.write_sysctl("net.ipv6.conf.lo.disable_ipv6", "1")
    assert not elsewhere.has_ipv6()
    elsewhere.write_sysctl("net.ipv6.conf.lo.disable_ipv6", "0")
    assert elsewhere.has_ipv6()
    # A kernel that was started with ipv6.disable=1 has no such files.
    monkeypatch.setattr(netns, "_sysctl", lambda name, proc=None: Path("/proc/sys/none"))
    assert not elsewhere.has_ipv6()


def test_several_sysctls_are_read_at_once_and_those_that_are_not_there_left_out(elsewhere) -> None:
    elsewhere.write_sysctl("net.ipv4.fwmark_reflect", "1")
    names = ["net.ipv4.fwmark_reflect", "net.ipv4.none_such", "net.ipv4.ip_local_port_range"]
    found = elsewhere.read_sysctls(names)
    assert found == {"net.ipv4.fwmark_reflect": "1", names[2]: elsewhere.read_sysctl(names[2])}


STAYS = """
import os, socket
os.setgid(65534); os.setuid(65534)
from ztunnel.kernel import netns
with netns.own() as namespace:
    assert namespace.inode == os.stat("/proc/self/ns/net").st_ino
    assert namespace.cookie
    with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        made.bind(("127.0.0.1", 0))
    assert namespace.ephemeral_ports()[0] > 0
try:
    netns.current()
except PermissionError:
    print("entering takes a right")
"""


def test_a_process_that_stays_where_it_is_needs_no_right_to_enter() -> None:
    done = subprocess.run([sys.executable, "-c", STAYS], capture_output=True, text=True, timeout=30)
    assert done.stdout == "entering takes a right\n", done.stderr
