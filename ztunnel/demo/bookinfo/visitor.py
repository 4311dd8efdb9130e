"""Looks at a page of Bookinfo again and again, from a pod of the mesh, and says what it saw.

python -m ztunnel.demo.bookinfo.visitor COUNT PARALLEL PATH USER [NAME:VALUE...]

COUNT looks at http://productpage:9080/PATH, PARALLEL at a time, each over a connection of its own that
stays. USER signs in first, unless it is empty. One line of JSON, as `visit.render` writes it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from urllib.parse import quote

from ztunnel.demo.bookinfo.visit import Visit, read_page, render

PATIENCE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Visitor:
    """Looks at pages of a server; `headers` go with each request."""

    host: str
    port: int
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def signed_in(self, user: str) -> Visitor:
        """The same, as this user. Raises OSError, HTTPException."""
        connection = HTTPConnection(self.host, self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request("POST", "/login", f"username={quote(user)}&passwd=x", self.headers)
            response = connection.getresponse()
            response.read()
            cookie = response.getheader("set-cookie", "").partition(";")[0]
        finally:
            connection.close()
        if not cookie:
            raise HTTPException(f"{user} could not sign in: {response.status}")
        return Visitor(self.host, self.port, self.path, {**self.headers, "cookie": cookie})

    def visit(self, count: int) -> list[Visit]:
        """Look so often, one after the other."""
        connection = HTTPConnection(self.host, self.port, timeout=PATIENCE_SECONDS)
        try:
            return [self._look(connection) for _ in range(count)]
        finally:
            connection.close()

    def _look(self, connection: HTTPConnection) -> Visit:
        began = time.monotonic()
        try:
            connection.request("GET", self.path, headers=dict(self.headers))
            response = connection.getresponse()
            html = response.read().decode("utf-8", "replace")
        except (OSError, HTTPException) as error:
            connection.close()
            return Visit(0, time.monotonic() - began, errors=(str(error) or type(error).__name__,))
        return read_page(response.status, time.monotonic() - began, html)


def visit_all(visitor: Visitor, count: int, parallel: int) -> list[Visit]:
    """`count` looks in all, `parallel` at a time."""
    shares = [count // parallel + (number < count % parallel) for number in range(parallel)]
    with ThreadPoolExecutor(parallel) as pool:
        return [visit for visits in pool.map(visitor.visit, shares) for visit in visits]


def main(words: Sequence[str]) -> None:
    """Prints what was seen."""
    count, parallel, path, user, *fields = words
    headers = dict(field.split(":", 1) for field in fields)
    visitor = Visitor("productpage", 9080, path, headers)
    print(render(visit_all(visitor.signed_in(user) if user else visitor, int(count), int(parallel))))


if __name__ == "__main__":
    main(sys.argv[1:])
