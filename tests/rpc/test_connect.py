"""What can go wrong before there is a connection, each with its reason."""

from __future__ import annotations

import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.rpc.conftest import HOST, Pair, client_context, make_pair, server_context
from ztunnel.rpc.connect import ANOTHER_SECONDS, connect
from ztunnel.rpc.limits import CLIENT
from ztunnel.rpc.status import Code, RpcError


async def fail(port: int, context: ssl.SSLContext, name: str = HOST, **limits: float) -> str:
    """What the failure says."""
    with pytest.raises(RpcError) as failed:
        await connect("127.0.0.1", port, lambda: context, name, replace(CLIENT, **limits))
    assert failed.value.code is Code.UNAVAILABLE
    return failed.value.message


async def test_nobody_listens(pair: Pair) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert "refused" in await fail(taken.getsockname()[1], client_context(pair))


async def test_a_server_that_says_nothing(pair: Pair) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        said = await fail(silent.getsockname()[1], client_context(pair), handshake_seconds=0.1)
        assert "did not complete the TLS handshake in time" in said


async def test_one_that_is_not_answered_does_not_keep_the_next_waiting(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """As behind a service of Kubernetes, whose pick for the first has just gone."""
    begun: list[float] = []
    streams = trio.testing.memory_stream_pair()

    async def begin(_host: str, _port: int) -> trio.abc.Stream:
        begun.append(trio.current_time())
        if len(begun) < 3:
            await trio.sleep_forever()
        return streams[0]

    monkeypatch.setattr(trio, "open_tcp_stream", begin)
    before = trio.current_time()
    made: object = await connect("service", 15012, None, HOST, CLIENT)
    assert made is streams[0]
    assert [at - before for at in begun] == [0, ANOTHER_SECONDS, 2 * ANOTHER_SECONDS]


async def test_one_that_nobody_answers_is_given_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async def begin(_host: str, _port: int) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(trio, "open_tcp_stream", begin)
    before = trio.current_time()
    with pytest.raises(RpcError) as failed:
        await connect("service", 15012, None, HOST, CLIENT)
    assert "service:15012 did not answer in time" in failed.value.message
    assert trio.current_time() - before == CLIENT.connect_seconds


@pytest.mark.parametrize("wrong", ["root", "name", "protocol"])
async def test_a_server_that_is_not_the_one(pair: Pair, tmp_path: Path, wrong: str) -> None:
    served = server_context(pair, tmp_path)
    if wrong == "protocol":
        served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        served.load_cert_chain(tmp_path / "serving.pem")
    roots = make_pair(HOST) if wrong == "root" else pair
    name = "another.test" if wrong == "name" else HOST

    async def take(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, served, server_side=True)
        try:
            await tls.do_handshake()
            await tls.receive_some(1)
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(tls)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, take, listeners)
        said = await fail(listeners[0].socket.getsockname()[1], client_context(roots), name)
        nursery.cancel_scope.cancel()
    assert {"root": "certificate", "name": "another.test", "protocol": "ALPN"}[wrong] in said


async def test_a_context_that_cannot_be_made(pair: Pair) -> None:
    def unreadable() -> ssl.SSLContext:
        raise FileNotFoundError(2, "No such file", "/roots.pem")

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, trio.aclose_forcefully, listeners)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(RpcError, match="No such file"):
            await connect("127.0.0.1", port, unreadable, HOST, CLIENT)
        nursery.cancel_scope.cancel()
