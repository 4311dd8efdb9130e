"""Keys are fetched over real connections; what servers may do is bounded, and so is whom we ask."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing
from cryptography import x509

from tests.identity.builders import NOW, PEM, Authority, Leaf, pem_of
from tests.l7.issuers import jwk, jwks
from ztunnel.control.keys.fetch_keys import KeyClient, Keys, Unfetched
from ztunnel.control.keys.key_source import KeySource
from ztunnel.control.keys.reach import Reach
from ztunnel.l7.jwt.jwks import MAX_BYTES, KeySet, parse_keys
from ztunnel.telemetry.figures import Figures

HERE = Reach((ip_network("127.0.0.1/32"), ip_network("::1/128")))
KEYS = jwks(jwk("ES256"))
ROOT = Authority.root("issuers")


def answer(body: str | bytes = KEYS, status: str = "200 OK", *headers: str) -> bytes:
    octets = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(octets)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + octets


def redirect(to: str) -> bytes:
    return answer("", "302 Found", f"location: {to}")


Answers = Callable[[str, str], bytes]


class Web:
    """Servers at both loopback addresses and one port; `asked` are the paths, `hosts` who was asked for."""

    def __init__(self, answers: dict[str, bytes] | Answers) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.hosts: set[str] = set()
        self.port = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        head = b""
        try:
            while b"\r\n\r\n" not in head:
                head += await stream.receive_some() or b"\r\n\r\n"
            lines = head.decode().split("\r\n")
            path = lines[0].split()[1]
            self.asked.append(path)
            self.hosts.update(line[6:] for line in lines if line.lower().startswith("host: "))
            assert "accept-encoding: identity" in [line.lower() for line in lines]
            found = self.answers(path, "") if callable(self.answers) else self.answers[path]
            if found:
                await stream.send_all(found)
            else:
                await trio.sleep_forever()
            await stream.aclose()
        except (trio.BrokenResourceError, OSError, IndexError):
            return


@asynccontextmanager
async def web(answers: dict[str, bytes], tls: ssl.SSLContext | None = None) -> AsyncIterator[Web]:
    it = Web(answers)

    async def serve(stream: trio.abc.Stream) -> None:
        if tls is not None:
            stream = trio.SSLStream(stream, tls, server_side=True)  # type: ignore[arg-type]
        await it.serve(stream)

    async with trio.open_nursery() as nursery:
        (v4,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        it.port = v4.socket.getsockname()[1]
        (v6,) = await trio.open_tcp_listeners(it.port, host="::1")
        nursery.start_soon(trio.serve_listeners, serve, [v4, v6])
        yield it
        nursery.cancel_scope.cancel()


def context(*names: x509.GeneralName) -> ssl.SSLContext:
    leaf = Leaf(names, san_critical=False, end=NOW + timedelta(days=3000))
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    import tempfile

    with tempfile.NamedTemporaryFile("w") as file:
        file.write(pem_of(leaf.key) + leaf.signed_by(ROOT).public_bytes(PEM).decode())
        file.flush()
        made.load_cert_chain(file.name)
    return made


@pytest.fixture
def roots(tmp_path: Path) -> str:
    file = tmp_path / "roots.pem"
    file.write_text(ROOT.pem)
    return str(file)


async def fetch(url: str, reach: Reach = HERE, roots: str = "", *, discovers: bool = False) -> list[str]:
    """The names of the keys."""
    with trio.fail_after(5):
        found = await KeyClient(reach, roots).fetch(KeySource(url, discovers))
    return [key.kid for key in found.keys]


async def refused(url: str, reach: Reach = HERE, roots: str = "", *, discovers: bool = False) -> str:
    with pytest.raises(Unfetched) as caught:
        await fetch(url, reach, roots, discovers=discovers)
    return str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
async def test_keys_are_fetched(host: str) -> None:
    async with web({"/keys?a=b": answer()}) as it:
        assert await fetch(f"http://{host}:{it.port}/keys?a=b") == ["k1"]
        assert it.hosts == {f"{host}:{it.port}"}


@pytest.mark.parametrize("path", ["", "/a"])
async def test_an_issuer_says_itself_where_its_keys_are(path: str) -> None:
    async with web({}) as it:
        there = f"http://localhost:{it.port}"
        configuration = f'{{"issuer": "x", "jwks_uri": "{there}/its/keys"}}'
        asked = f"{path}/.well-known/openid-configuration"
        it.answers = {asked: answer(configuration), "/its/keys": answer()}
        assert await fetch(there + asked, discovers=True) == ["k1"]
        assert it.asked == [asked, "/its/keys"]


async def test_by_https_the_server_is_who_it_says(roots: str) -> None:
    for names, host in (
        ([x509.DNSName("localhost")], "localhost"),
        ([x509.IPAddress(ip_address("127.0.0.1"))], "127.0.0.1"),
        ([x509.IPAddress(ip_address("::1"))], "[::1]"),
    ):
        async with web({"/": answer()}, context(*names)) as it:
            assert await fetch(f"https://{host}:{it.port}/", roots=roots) == ["k1"]


async def test_by_https_nobody_else_is_believed(roots: str) -> None:
    async with web({"/": answer()}, context(x509.DNSName("other.example"))) as it:
        assert "certificate verify failed: Hostname mismatch" in await refused(
            f"https://localhost:{it.port}/", roots=roots
        )
    async with web({"/": answer()}, context(x509.DNSName("localhost"))) as it:
        assert "certificate verify failed" in await refused(f"https://localhost:{it.port}/")
    assert it.asked == []


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (answer(status="404 Not Found"), "answered with status 404"),
        (answer(status="204 No Content"), "answered with status 204"),
        (answer("<html>"), "what came is no JSON object"),
        (answer('{"keys": []}'), "what came has no public key that can be used"),
        (answer("token=secret of an instance"), "what came is no JSON object"),
        (answer(KEYS + " " * MAX_BYTES), "larger than 512 KiB"),
        (answer(KEYS, "200 OK", "content-encoding: gzip"), "an encoding that was not asked for"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}", "peer closed connection"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "illegal"),
    ],
)
async def test_what_is_no_key_set_is_refused(found: bytes, reason: str) -> None:
    async with web({"/": found}) as it:
        assert reason in await refused(f"http://localhost:{it.port}/")


async def test_an_answer_without_end_ends() -> None:
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (MAX_BYTES + 1)
    async with web({"/": endless}) as it:
        assert "larger than 512 KiB" in await refused(f"http://localhost:{it.port}/")


async def test_redirects_are_followed_and_looked_at() -> None:
    async with web({}) as it:
        here = f"http://localhost:{it.port}"
        it.answers = {
            "/": redirect("/next?x=1"),
            "/next?x=1": redirect(f"{here}/keys"),
            "/keys": answer(),
            "/circle": redirect("/circle"),
            "/metadata": redirect("http://169.254.169.254/latest/meta-data/"),
            "/mapped": redirect("http://[::ffff:169.254.169.254]/"),
            "/file": redirect("file:///etc/passwd"),
            "/user": redirect("http://user:pw@localhost/"),
            "/none": answer("", "302 Found"),
        }
        assert await fetch(f"{here}/") == ["k1"]
        assert await refused(f"{here}/circle") == "more than 3 redirects"
        assert "169.254.169.254, which may not be asked" in await refused(f"{here}/metadata")
        assert "which may not be asked" in await refused(f"{here}/mapped")
        assert "redirected to what must be http://" in await refused(f"{here}/file")
        assert "redirected to what must not hold a user" in await refused(f"{here}/user")
        assert await refused(f"{here}/none") == "more than 3 redirects"


async def test_https_does_not_become_http(roots: str) -> None:
    async with web({"/": redirect("http://localhost/")}, context(x509.DNSName("localhost"))) as it:
        assert await refused(f"https://localhost:{it.port}/", roots=roots) == "redirected from https to http"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "localhost", "[::ffff:127.0.0.1]", "127.1", "2130706433"]
)
async def test_our_own_machine_is_not_asked(host: str) -> None:
    """istio CVE-2026-41413; in every spelling that a resolver takes."""
    async with web({"/": answer()}) as it:
        assert "which may not be asked (ZTUNNEL_JWKS_ALLOWED)" in await refused(
            f"http://{host}:{it.port}/", Reach()
        )
        assert it.asked == []


async def test_discovery_leads_to_no_address_that_may_not_be_asked() -> None:
    configuration = '{"jwks_uri": "http://169.254.169.254/latest"}'
    async with web({"/": answer(configuration)}) as it:
        reason = await refused(f"http://localhost:{it.port}/", discovers=True)
    assert "169.254.169.254, which may not be asked" in reason


async def test_whoever_is_not_there_says_so() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    assert await refused(f"http://127.0.0.1:{port}/")
    assert "a..b cannot be resolved" in await refused("http://a..b/")


async def test_one_address_of_a_name_is_enough() -> None:
    """Nobody listens at the other one."""
    it = Web({"/": answer()})
    async with trio.open_nursery() as nursery:
        (v4,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, it.serve, [v4])
        assert await fetch(f"http://localhost:{v4.socket.getsockname()[1]}/") == ["k1"]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def fetching(reach: Reach = HERE) -> AsyncIterator[tuple[Keys, Callable[[Callable[[], bool]], object]]]:
    """Keys that are fetched, and how to wait until something is so after a fetch."""
    keys = Keys(KeyClient(reach), Random(1))
    told = trio.Event()

    def observe() -> None:
        nonlocal told
        told.set()
        told = trio.Event()

    async def until(is_so: Callable[[], bool]) -> None:
        with trio.fail_after(5):
            while not is_so():
                await told.wait()

    keys.observe = observe
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keys.run)
        yield keys, until
        nursery.cancel_scope.cancel()


async def test_other_keys_are_told_once_and_what_fails_is_tried_again() -> None:
    async with (
        web({"/bad": answer("x"), "/good": answer(), "/silent": b""}) as it,
        fetching() as (keys, until),
    ):
        good, bad, silent = (
            KeySource(f"http://localhost:{it.port}/{name}") for name in ("good", "bad", "silent")
        )
        keys.want({good: 5.0, bad: 5.0, silent: 0.1})
        await until(lambda: len(keys.remarks) == 2 and bool(keys.text(good)) and it.asked.count("/bad") > 1)
        assert (keys.take_changed(), keys.take_changed()) == ({good}, set())
        assert (keys.text(bad), keys.text(silent)) == ("", "")
        assert any("no answer within 0.1 s" in text for text in keys.remarks)


async def test_what_comes_to_be_wanted_is_fetched_at_once() -> None:
    async with web({"/": answer()}) as it, fetching() as (keys, until):
        await trio.testing.wait_all_tasks_blocked()
        source = KeySource(f"http://localhost:{it.port}/")
        keys.want({source: 5.0})
        await until(lambda: bool(keys.text(source)))


async def test_figures_say_how_it_goes() -> None:
    figures = Figures()
    async with web({"/": answer(), "/bad": answer("x")}) as it, fetching() as (keys, until):
        keys.register(figures)
        good, bad = (KeySource(f"http://localhost:{it.port}/{name}") for name in ("", "bad"))
        keys.want({good: 5.0, bad: 5.0})
        await until(lambda: bool(keys.text(good) and keys.remarks))
    found = {
        sample.name + str(sample.labels): sample.value for one in figures.collect() for sample in one.samples
    }
    assert found["ztunnel_control_key_fetches_total{'outcome': 'fetched'}"] == 1
    assert found["ztunnel_control_issuers_without_keys{}"] == 1


class Rotating:
    """An issuer with another key each time."""

    def __init__(self) -> None:
        self.at: list[float] = []

    async def fetch(self, source: KeySource) -> KeySet:
        self.at.append(trio.current_time())
        return parse_keys(jwks(jwk("EdDSA", f"k{len(self.at)}")).encode())


async def test_keys_that_are_missed_are_looked_for_within_a_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client = Rotating()
    keys, source = Keys(client, Random(1)), KeySource("https://issuer.example/keys")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keys.run)
        keys.want({source: 5.0})
        await trio.sleep(1)
        began = client.at[0]
        for _ in range(100):
            keys.ask([source, KeySource("https://nobody.example")])
            await trio.sleep(1.5)
        assert [round(at - began) for at in client.at] == [0, 60, 120]
        assert "k3" in keys.text(source)
        nursery.cancel_scope.cancel()


async def test_without_a_client_nothing_is_fetched() -> None:
    keys = Keys()
    keys.want({KeySource("http://localhost:1/"): 1.0})
    assert (keys.text(KeySource("http://localhost:1/")), keys.take_changed(), keys.remarks) == ("", set(), ())
