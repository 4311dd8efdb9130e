"""Bookinfo's `productpage`: the page of a book, put together of what details and reviews say.

python -m ztunnel.demo.bookinfo.productpage [PORT]

    GET /                              leads to the page
    GET /productpage                   the page, as HTML
    POST /login, GET /logout           who looks at it; any password will do
    GET /api/v1/products               the books; .../N details, .../N/reviews and .../N/ratings, as JSON
    GET /health

Each of these is called with the tracing headers of the request, and `end-user` where somebody is signed in.
Reviews are asked twice, three seconds each, as in the original: before ten seconds of reviews' own patience
that is a bug, which a delay of seven seconds brings to light.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ztunnel.demo.bookinfo.page import SUMMARY, TITLE, index_page, product_page
from ztunnel.demo.bookinfo.service import Answer, Request, call, json_answer, not_found, serve

PATIENCE_SECONDS = 3.0
_TRIES = {"details": 1, "reviews": 2, "ratings": 1}
_COOKIE = "session"
_MOST_NAME = 64
_HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class ProductPage:
    """The service.

    Attributes:
        services: where `details`, `reviews` and `ratings` are, each as a URL without the book's number.
        key: signs the cookie that says who is signed in.
    """

    services: Mapping[str, str]
    key: bytes

    def answer(self, request: Request) -> Answer:
        """To any request."""
        match request.method, request.path:
            case "POST", "/login":
                return self._sign_in(request)
            case _, "/logout":
                return _back(request, f"{_COOKIE}=; Path=/; Max-Age=0")
            case _, "/health":
                return Answer(HTTPStatus.OK, b"Product page is healthy", "text/plain")
            case _, "/" | "/index.html":
                known = {"productpage": dict(self.services), "reviews": {"ratings": self.services["ratings"]}}
                return _html(index_page(self._user(request), {**known, "details": {}, "ratings": {}}))
            case _, "/productpage":
                return _html(
                    product_page(
                        self._user(request), self._ask(request, "details"), self._ask(request, "reviews")
                    )
                )
            case _, path if path.startswith("/api/v1/products"):
                return self._api(request, path.removeprefix("/api/v1/products").strip("/").split("/"))
        return not_found()

    def _api(self, request: Request, words: list[str]) -> Answer:
        match words:
            case [""]:
                return json_answer([{"id": 0, "title": TITLE, "descriptionHtml": SUMMARY}])
            case [number]:
                service = "details"
            case [number, "reviews" | "ratings" as service]:
                pass
            case _:
                return not_found()
        if not (number.isascii() and number.isdecimal() and len(number) < 10):
            return json_answer({"error": "please provide numeric product id"}, HTTPStatus.BAD_REQUEST)
        status, said = self._ask(request, service, number)
        return json_answer(said, status)

    def _ask(self, request: Request, service: str, number: str = "0") -> tuple[int, Any]:
        """What a service says of a book: its status, 500 where there is none, and its JSON or an `error`."""
        headers = request.propagated
        headers.pop("end-user", None)  # it says who is signed in here, and nobody else says that
        if user := self._user(request):
            headers["end-user"] = user
        for _ in range(_TRIES[service]):
            said = call(f"{self.services[service]}/{number}", headers, PATIENCE_SECONDS)
            if said.status == HTTPStatus.OK:
                return HTTPStatus.OK, said.value
        unavailable = f"Sorry, product {service} are currently unavailable for this book."
        return said.status or HTTPStatus.INTERNAL_SERVER_ERROR, {"error": unavailable}

    # Who is signed in.

    def _sign_in(self, request: Request) -> Answer:
        user = parse_qs(request.body.decode("utf-8", "replace")).get("username", [""])[0][:_MOST_NAME]
        if not user.isascii() or not user.isprintable():
            return json_answer({"error": "please provide a name of ASCII letters"}, HTTPStatus.BAD_REQUEST)
        value = f"{user.encode().hex()}.{self._signature(user)}"
        return _back(request, f"{_COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax")

    def _user(self, request: Request) -> str:
        try:
            cookies = SimpleCookie(request.headers.get("cookie", ""))
            name, _, signature = cookies[_COOKIE].value.partition(".")
            user = bytes.fromhex(name).decode("ascii")
        except (CookieError, KeyError, ValueError):
            return ""
        return user if hmac.compare_digest(signature.encode(), self._signature(user).encode()) else ""

    def _signature(self, user: str) -> str:
        return hmac.new(self.key, user.encode(), hashlib.sha256).hexdigest()


def _back(request: Request, cookie: str) -> Answer:
    """To the page that the request came from, on this very server."""
    came_from = urlsplit(request.headers.get("referer", "")).path
    place = came_from if came_from in ("/", "/productpage") else "/productpage"
    return Answer(HTTPStatus.FOUND, b"", _HTML, {"location": place, "set-cookie": cookie})


def _html(text: str) -> Answer:
    return Answer(HTTPStatus.OK, text.encode(), _HTML)


def services_of(known: Mapping[str, str]) -> dict[str, str]:
    """Where the others are, of the environment; the original's variables are read as well."""
    domain = f".{known['SERVICES_DOMAIN']}" if known.get("SERVICES_DOMAIN") else ""
    found = {}
    for service in ("details", "reviews", "ratings"):
        host = known.get(f"{service.upper()}_HOSTNAME", service)
        port = known.get(f"{service.upper()}_SERVICE_PORT", "9080")
        found[service] = known.get(f"{service.upper()}_URL", f"http://{host}{domain}:{port}/{service}")
    return found


if __name__ == "__main__":
    key = os.environ.get("SESSION_KEY", "").encode() or secrets.token_bytes(32)
    serve(ProductPage(services_of(os.environ), key).answer)
