"""Bookinfo's `ratings`: how many stars each reviewer gives a book.

python -m ztunnel.demo.bookinfo.ratings [PORT]

    GET /ratings/N     {"id": N, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}
    POST /ratings/N    other ratings for book N, kept while the process lives
    GET /health

The variable SERVICE_VERSION makes it fail on purpose, as the original does: `v-faulty` answers half of all
requests with 503, `v-delayed` lets half of them wait for seven seconds.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from http import HTTPStatus
from random import Random, SystemRandom

from ztunnel.demo.bookinfo.service import Answer, Request, health, json_answer, not_found, product_of, serve

DELAY_SECONDS = 7.0
_MOST_BOOKS = 1000


class Ratings:
    """Of all books.

    Args:
        version: `v-faulty` and `v-delayed` fail on purpose.
    """

    def __init__(self, version: str, rng: Random, sleep: Callable[[float], None]) -> None:
        """Nobody has rated anything yet."""
        self._version, self._rng, self._sleep = version, rng, sleep
        self._given: dict[int, dict[str, int]] = {}

    def answer(self, request: Request) -> Answer:
        """To any request."""
        if request.path == "/health":
            return health("Ratings")
        if not request.path.startswith("/ratings/"):
            return not_found()
        number = product_of(request.path, "ratings")
        if number is None:
            return json_answer({"error": "please provide numeric product ID"}, HTTPStatus.BAD_REQUEST)
        if request.method == "POST":
            return self._take(number, request.body)
        if self._version == "v-faulty" and self._rng.random() < 0.5:
            return json_answer({"error": "Service unavailable"}, HTTPStatus.SERVICE_UNAVAILABLE)
        if self._version == "v-delayed" and self._rng.random() < 0.5:
            self._sleep(DELAY_SECONDS)
        return json_answer(self._of(number))

    def _of(self, number: int) -> dict[str, object]:
        return {"id": number, "ratings": self._given.get(number, {"Reviewer1": 5, "Reviewer2": 4})}

    def _take(self, number: int, untrusted: bytes) -> Answer:
        try:
            given = json.loads(untrusted)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict) or not all(type(stars) is int for stars in given.values()):
            return json_answer({"error": "please provide valid ratings JSON"}, HTTPStatus.BAD_REQUEST)
        if number not in self._given and len(self._given) >= _MOST_BOOKS:
            return json_answer({"error": "too many books have ratings"}, HTTPStatus.INSUFFICIENT_STORAGE)
        self._given[number] = given
        return json_answer(self._of(number))


if __name__ == "__main__":
    serve(Ratings(os.environ.get("SERVICE_VERSION", "v1"), SystemRandom(), time.sleep).answer)
