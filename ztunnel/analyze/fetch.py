"""Asks a running node proxy's admin page."""

from __future__ import annotations

from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

_SECONDS = 10.0


class NoAnswer(Exception):
    """Nobody answered, or with an error; the message says who was asked and why not."""


def fetch(admin: str, path: str) -> str:
    """The body of `path` from `host:port` or a URL. Raises NoAnswer."""
    address = admin if "://" in admin else f"http://{admin}"
    try:
        with urlopen(f"{address}{path}", timeout=_SECONDS) as answer:
            return str(answer.read().decode(errors="replace"))
    except HTTPError as error:
        with error:
            raise NoAnswer(
                f"{admin}: {error.read().decode(errors='replace').strip() or error.reason}"
            ) from error
    except (URLError, OSError, HTTPException, ValueError) as error:
        raise NoAnswer(f"{admin}: {getattr(error, 'reason', error)}") from error
