import json
from random import Random

import pytest

from ztunnel.demo.bookinfo.ratings import DELAY_SECONDS, Ratings
from ztunnel.demo.bookinfo.service import Request

STARS = {"Reviewer1": 5, "Reviewer2": 4}


def ratings(version: str = "v1", slept: list[float] | None = None) -> Ratings:
    return Ratings(version, Random(7), (slept if slept is not None else []).append)


def test_a_book_has_stars_and_can_be_given_others(start) -> None:
    client = start(ratings().answer)
    assert client.ask("/ratings/3").value == {"id": 3, "ratings": STARS}
    assert client.ask("/ratings/3", "POST", b'{"Reviewer1": 1}').value == {
        "id": 3,
        "ratings": {"Reviewer1": 1},
    }
    assert client.ask("/ratings/3").value == {"id": 3, "ratings": {"Reviewer1": 1}}
    assert client.ask("/ratings/4").value == {"id": 4, "ratings": STARS}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "/health", b"", 200, b"Ratings is healthy"),
        ("GET", "/ratings/x", b"", 400, b"numeric product ID"),
        ("GET", "/other", b"", 404, b"nothing"),
        ("POST", "/ratings/1", b"", 400, b"valid ratings JSON"),
        ("POST", "/ratings/1", b"[1]", 400, b"valid ratings JSON"),
        ("POST", "/ratings/1", b'{"a": true}', 400, b"valid ratings JSON"),
        ("POST", "/ratings/1", b"[" * 60_000, 400, b"valid ratings JSON"),
    ],
)
def test_everything_else_is_answered_too(
    method: str, path: str, body: bytes, status: int, text: bytes
) -> None:
    said = ratings().answer(Request(method, path, {}, body))
    assert said.status == status
    assert text in said.body


def test_what_is_remembered_has_an_end() -> None:
    service = ratings()
    answers = [service.answer(Request("POST", f"/ratings/{n}", {}, b'{"a": 1}')).status for n in range(1001)]
    assert answers == [200] * 1000 + [507]
    assert service.answer(Request("POST", "/ratings/0", {}, b'{"a": 2}')).status == 200


def test_a_faulty_version_fails_half_of_the_time() -> None:
    service = ratings("v-faulty")
    said = [service.answer(Request("GET", "/ratings/0", {})) for _ in range(1000)]
    failed = [one for one in said if one.status == 503]
    assert 400 < len(failed) < 600
    assert json.loads(failed[0].body) == {"error": "Service unavailable"}
    assert service.answer(Request("GET", "/health", {})).status == 200


def test_a_slow_version_takes_seven_seconds_half_of_the_time() -> None:
    slept: list[float] = []
    service = ratings("v-delayed", slept)
    assert {service.answer(Request("GET", "/ratings/0", {})).status for _ in range(1000)} == {200}
    assert set(slept) == {DELAY_SECONDS}
    assert 400 < len(slept) < 600
