import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ztunnel.demo.claims.caller import Connections, Order


@pytest.fixture
def echo() -> Iterator[int]:
    """The laboratory's echo server; its port."""
    command = [sys.executable, "-S", "-m", "ztunnel.demo.echo", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().split()[-1])
        process.kill()


@pytest.fixture
def connections() -> Iterator[Connections]:
    made = Connections()
    yield made
    made.obey({"do": "close", "names": []})


def opening(port: int, **fields: object) -> Order:
    known = {"do": "open", "name": "a", "host": "127.0.0.1", "mapped": False, "mark": 0, "patience": 2.0}
    return {**known, "port": port, **fields}


def test_it_says_both_ends_of_what_it_opened(connections: Connections, echo: int) -> None:
    answer = connections.obey(opening(echo))
    assert (answer["error"], answer["local"][0], answer["peer"]) == ("", "127.0.0.1", ("127.0.0.1", echo))


def test_it_reaches_ipv4_through_an_ipv6_socket(connections: Connections, echo: int) -> None:
    answer = connections.obey(opening(echo, mapped=True))
    assert answer["peer"] == ("::ffff:127.0.0.1", echo)


def test_it_compares_what_comes_back_with_what_it_sent(connections: Connections, echo: int) -> None:
    connections.obey(opening(echo))
    order = {"do": "exchange", "name": "a", "text": "m" * 50, "times": 40_000, "patience": 4.0}
    assert connections.obey(order) | {"seconds": 0, "at": 0} == {
        "error": "", "seconds": 0, "at": 0, "echoed": 2_000_000,
    }  # fmt: skip


def test_it_asks_and_fetches(connections: Connections, echo: int) -> None:
    connections.obey(opening(echo))
    assert connections.obey({"do": "ask", "name": "a", "patience": 2.0})["said"]["path"] == "/"
    fetched = connections.obey({"do": "fetch", "name": "a", "path": "/bytes/3000000", "patience": 4.0})
    assert (fetched["error"], fetched["fetched"]) == ("", 3_000_000)


def test_a_refusal_is_named(connections: Connections) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert connections.obey(opening(port))["error"] == "ECONNREFUSED"


def test_it_sees_which_connections_end_and_when(connections: Connections) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted = []
        for name in ("ends", "lives"):
            assert not connections.obey(opening(server.getsockname()[1], name=name))["error"]
            accepted.append(server.accept()[0])
        accepted[0].close()
        answer = connections.obey({"do": "ends", "names": ["ends", "lives"], "patience": 0.1})
        assert [(name, each["error"]) for name, each in answer["ended"].items()] == [("ends", "EOF")]
        assert answer["ended"]["ends"]["at"] <= answer["at"]
        accepted[1].close()


def test_silence_is_a_timeout_and_an_early_end_an_end(connections: Connections) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections.obey(opening(server.getsockname()[1]))
        accepted, _ = server.accept()
        assert connections.obey({"do": "ask", "name": "a", "patience": 0.05})["error"] == "ETIMEDOUT"
        order = {"do": "exchange", "name": "a", "text": "m", "times": 1, "patience": 0.05}
        assert connections.obey(order)["error"] == "ETIMEDOUT"
        accepted.recv(100)
        accepted.close()
        assert connections.obey({"do": "ask", "name": "a", "patience": 1.0})["error"] in ("EOF", "ECONNRESET")
