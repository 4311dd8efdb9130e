import pytest

from ztunnel.demo.operate import Laboratory

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


@pytest.mark.parametrize("family", [0, 1])
def test_what_passes_between_nodes_is_seen_once(standing: Laboratory, family: int) -> None:
    address = standing.pod("far").addresses[family]
    host = f"[{address}]" if address.version == 6 else str(address)
    with standing.capture() as capture:
        standing.exec("caller", ["curl", "-s", f"http://{host}:8080/a-mark-to-look-for"])
        assert capture.holds(b"a-mark-to-look-for")
        assert not capture.holds(b"another mark")
        requests = [one for one in capture.segments if one.payload.startswith(b"GET /a-mark")]
    assert [(str(one.destination.ip), one.destination.port) for one in requests] == [(str(address), 8080)]
    assert requests[0].source.ip == standing.pod("caller").addresses[family]
    assert not requests[0].is_tls


def test_a_payload_that_is_cut_by_segments_is_found(standing: Laboratory) -> None:
    script = (
        "import socket, sys\n"
        "sock = socket.create_connection((sys.argv[1], 8080)); sock.setsockopt(6, 1, 1)\n"
        "for part in (b'#begin-', b'middle-', b'end'): sock.send(part); sock.recv(100)\n"
    )
    with standing.capture() as capture:
        done = standing.exec("caller", ["python3", "-c", script, str(standing.pod("far").addresses[0])])
        assert done.returncode == 0, done.stderr
        assert capture.holds(b"#begin-middle-end")


def test_what_stays_on_a_node_does_not_pass(standing: Laboratory) -> None:
    with standing.capture() as capture:
        standing.exec("caller", ["curl", "-s", f"http://{standing.pod('near').addresses[0]}:8080/local-mark"])
        assert not capture.holds(b"local-mark")
