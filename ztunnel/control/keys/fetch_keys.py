"""Fetches the keys of issuers, and keeps them fresh, so that waypoints need no way out of the mesh.

What is asked for is what somebody wrote into an object: only by http and https, no larger and no longer than
is allowed, over a few redirects at most, and never at an address that `reach` does not admit. HTTP is h11's;
a client that resolves names itself could not be told whom not to connect to."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from random import Random
from typing import Final, Protocol
from urllib.parse import SplitResult, urljoin, urlsplit

import h11
import trio

from ztunnel.control.keys.key_schedule import REFRESH_SECONDS, KeySchedule, Rng
from ztunnel.control.keys.key_source import KeySource, keys_url_of
from ztunnel.control.keys.reach import Reach
from ztunnel.l7.jwt.jwks import MAX_BYTES, KeySet, parse_keys
from ztunnel.model.address import IPAddress
from ztunnel.state.request_authentication import wrong_url
from ztunnel.telemetry.figures import Figures

_REDIRECTS: Final = 3
_AT_ONCE: Final = 8
_MOST_SECONDS: Final = 60.0
_NEVER: Final = 3600.0
_REDIRECTING: Final = frozenset((301, 302, 303, 307, 308))
_READ_BYTES: Final = 65_536


class Unfetched(Exception):
    """Why keys could not be had."""


class Client(Protocol):
    """Whoever gets keys."""

    async def fetch(self, source: KeySource) -> KeySet:
        """The keys that are there. Raises Unfetched."""


class KeyClient:
    """Asks for keys over the network."""

    def __init__(self, reach: Reach, roots: str = "") -> None:
        """`roots` is a file with certificates that are trusted beside the system's; OSError and SSLError are
        raised where it is none."""
        self._reach = reach
        self._roots = roots
        self._context = self._trusting() if roots else None

    def _trusting(self) -> ssl.SSLContext:
        """Made for the first issuer that is asked: it reads all of the system's certificates."""
        from httpx2 import create_ssl_context

        context = create_ssl_context()
        if self._roots:
            context.load_verify_locations(self._roots)
        return context

    async def fetch(self, source: KeySource) -> KeySet:
        """The keys that are there.

        Raises:
            Unfetched: says why. The deadline is the caller's.
        """
        try:
            url = source.url
            if source.discovers:
                url = keys_url_of(await self._get(url))
            return parse_keys(await self._get(url))
        except ValueError as error:
            raise Unfetched(f"what came {error}") from error

    async def _get(self, url: str) -> bytes:
        for _ in range(_REDIRECTS + 1):
            there, body = await self._ask(urlsplit(url))
            if not there:
                return body
            there = urljoin(url, there)
            if reason := wrong_url(there):
                raise Unfetched(f"redirected to what {reason}")
            if url.startswith("https:") and not there.startswith("https:"):
                raise Unfetched("redirected from https to http")
            url = there
        raise Unfetched(f"more than {_REDIRECTS} redirects")

    async def _ask(self, url: SplitResult) -> tuple[str, bytes]:
        """Where it is said to be instead, or what is there."""
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        try:
            async with await self._connect(host, port) as connected:
                stream: trio.abc.Stream = connected
                if url.scheme == "https":
                    self._context = self._context or self._trusting()
                    stream = trio.SSLStream(
                        connected, self._context, server_hostname=host, https_compatible=True
                    )
                return await _exchange(stream, url)
        except (trio.BrokenResourceError, h11.RemoteProtocolError, OSError) as error:
            raise Unfetched(_deepest(error)) from error

    async def _connect(self, host: str, port: int) -> trio.SocketStream:
        """At the addresses of that host, one after the other, until one answers. Raises OSError."""
        failure: OSError | None = None
        for address in await self._resolve(host, port):
            try:
                return await trio.open_tcp_stream(str(address), port)
            except OSError as error:
                failure = error
        assert failure is not None
        raise failure

    async def _resolve(self, host: str, port: int) -> list[IPAddress]:
        try:
            found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Unfetched(f"{host} cannot be resolved: {error}") from error
        addresses = list(dict.fromkeys(ip_address(str(one[4][0]).partition("%")[0]) for one in found))
        refused = [str(one) for one in addresses if not self._reach.admits(one)]
        if refused:
            raise Unfetched(f"{host} is {', '.join(refused)}, which may not be asked (ZTUNNEL_JWKS_ALLOWED)")
        return addresses


async def _exchange(stream: trio.abc.Stream, url: SplitResult) -> tuple[str, bytes]:
    """Where it is said to be instead, or the body of the answer."""
    connection = h11.Connection(h11.CLIENT)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    headers = [("host", url.netloc), ("accept", "application/json"), ("accept-encoding", "identity")]
    headers += [("user-agent", "ztunnel-control"), ("connection", "close")]
    asked = connection.send(h11.Request(method="GET", target=target, headers=headers))
    await stream.send_all(asked or b"")
    connection.send(h11.EndOfMessage())
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
        elif isinstance(event, h11.Response):
            if there := _elsewhere(event, url):
                return there, b""
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BYTES:
                raise Unfetched(f"larger than {MAX_BYTES // 1024} KiB")
        elif isinstance(event, h11.EndOfMessage):
            return "", bytes(body)
        elif not isinstance(event, h11.InformationalResponse):
            raise Unfetched("closed before it had answered")


def _elsewhere(response: h11.Response, url: SplitResult) -> str:
    """Where a redirect leads to; empty for an answer that has a body which is wanted."""
    found = {bytes(name): bytes(value).decode("latin-1") for name, value in response.headers}
    if response.status_code in _REDIRECTING:
        return found.get(b"location") or url.geturl()
    if response.status_code != 200:
        raise Unfetched(f"answered with status {response.status_code}")
    if found.get(b"content-encoding", "identity") != "identity":
        raise Unfetched("answered in an encoding that was not asked for")
    return ""


def _deepest(error: BaseException) -> str:
    """The text of what is at the bottom of it."""
    text, below = type(error).__name__, [error]
    while below:
        one = below.pop()
        text = str(one) or text
        if isinstance(one, BaseExceptionGroup):
            below.append(one.exceptions[0])
        elif one.__cause__ is not None:
            below.append(one.__cause__)
    return text


class Keys:
    """The keys of all issuers that are asked for, fetched by `run`. Without a client none is.

    Attributes:
        observe: called after each fetch; nobody at first.
    """

    def __init__(
        self,
        client: Client | None = None,
        rng: Rng | None = None,
        refresh_seconds: float = REFRESH_SECONDS,
    ) -> None:
        self._client = client
        self._schedule = KeySchedule(rng or Random(), refresh_seconds)
        self._changed: set[KeySource] = set()
        self._woken = trio.Event()
        self._places = trio.CapacityLimiter(_AT_ONCE)
        self.observe: Callable[[], None] = lambda: None

    def want(self, sources: Mapping[KeySource, float]) -> None:
        """From now on these are wanted, with the seconds that each may take."""
        if self._client is not None:
            self._schedule.want(sources, trio.current_time())
            self._woken.set()

    def text(self, source: KeySource) -> str:
        """The keys in force, as they are served; empty where there are none."""
        return self._schedule.text(source)

    def ask(self, sources: Iterable[KeySource]) -> None:
        """Tokens name keys that are not among these: see soon whether they are now."""
        for source in sources:
            if self._schedule.ask(source, trio.current_time()):
                self._woken.set()

    def take_changed(self) -> set[KeySource]:
        """The sources that have had other keys since this was asked last."""
        changed, self._changed = self._changed, set()
        return changed

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the operator should know."""
        return self._schedule.remarks

    def register(self, figures: Figures) -> None:
        """Bring the figures to the register."""
        schedule = self._schedule
        figures.counter(
            "ztunnel_control_key_fetches_total", "Times that keys of issuers were asked for",
            lambda: [(("fetched",), schedule.fetched), (("failed",), schedule.failed)], ["outcome"],
        )  # fmt: skip
        figures.gauge(
            "ztunnel_control_issuers_without_keys",
            "Issuers whose keys could not be fetched yet: none of their tokens is valid",
            lambda: schedule.missing,
        )

    async def run(self) -> None:
        """Fetch until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._woken = trio.Event()
                for source, seconds in self._schedule.take_due(trio.current_time()).items():
                    nursery.start_soon(self._fetch, source, seconds)
                pause = min(_NEVER, max(0.0, self._schedule.next_at - trio.current_time()))
                with trio.move_on_after(pause):
                    await self._woken.wait()

    async def _fetch(self, source: KeySource, seconds: float) -> None:
        assert self._client is not None
        try:
            async with self._places:
                with trio.fail_after(min(seconds, _MOST_SECONDS)):
                    keys = await self._client.fetch(source)
        except Unfetched as error:
            self._schedule.fail(source, str(error), trio.current_time())
        except trio.TooSlowError:
            self._schedule.fail(source, f"no answer within {seconds:g} s", trio.current_time())
        else:
            if self._schedule.succeed(source, keys, trio.current_time()):
                self._changed.add(source)
        self._woken.set()
        self.observe()
