"""Who we are to an API server: a bearer token, which is replaced while we use it."""

from __future__ import annotations

import ssl
import subprocess
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Final, NamedTuple

import httpx2
import trio

TOKEN_SECONDS: Final = 60.0
"""How long a token that was read from a file counts: the kubelet replaces it long before it expires."""


class Access(NamedTuple):
    """An API server: its URL, what its certificate has to be signed by, and our credentials."""

    server: str
    context: ssl.SSLContext
    auth: httpx2.Auth | None


class BearerAuth(httpx2.Auth):
    """A bearer token from where `fetch` gets it: the token, and the seconds that it may be used. It is
    fetched anew when these have passed, and once when the server does not know it."""

    def __init__(self, fetch: Callable[[], tuple[str, float]]) -> None:
        """`fetch` blocks; it runs in a thread. It raises OSError or ValueError."""
        self._fetch = fetch
        self._token = ""
        self._until = float("-inf")

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        used = await self._current(anew=False)
        request.headers["Authorization"] = f"Bearer {used}"
        response = yield request
        if response.status_code == 401:
            fresh = await self._current(anew=True)
            if fresh != used:
                request.headers["Authorization"] = f"Bearer {fresh}"
                yield request

    async def _current(self, *, anew: bool) -> str:
        if anew or time.monotonic() >= self._until:
            try:
                self._token, seconds = await trio.to_thread.run_sync(self._fetch)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                if not self._token:
                    raise httpx2.TransportError(f"no token: {error}") from error
                seconds = TOKEN_SECONDS  # the one that we have may still be good
            self._until = time.monotonic() + seconds
        return self._token


def read_token(path: Path) -> tuple[str, float]:
    """A token, and the seconds that it may be used. Raises OSError or ValueError."""
    token = path.read_text().strip()
    if not token:
        raise ValueError(f"{path} is empty")
    return token, TOKEN_SECONDS
