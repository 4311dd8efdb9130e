import pytest

from tests.demo.bookinfo.conftest import Recorder
from ztunnel.demo.bookinfo.reviews import Reviews
from ztunnel.demo.bookinfo.service import Answer, Request, json_answer

STARS = json_answer({"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}})
UNAVAILABLE = {"error": "Ratings service is currently unavailable"}


def ratings_of(said: dict) -> list[object]:
    return [review.get("rating") for review in said["reviews"]]


def test_the_first_version_asks_nobody(start, recorder: Recorder) -> None:
    reviews = Reviews("v1", f"http://127.0.0.1:{start(recorder.answer).port}/ratings", "reviews-v1-x")
    said = start(reviews.answer).ask("/reviews/0").value
    assert (said["id"], said["podname"], said["clustername"]) == ("0", "reviews-v1-x", "null")
    assert [review["reviewer"] for review in said["reviews"]] == ["Reviewer1", "Reviewer2"]
    assert ratings_of(said) == [None, None]
    assert not recorder.asked


@pytest.mark.parametrize(("version", "color"), [("v2", "black"), ("v3", "red")])
def test_the_others_show_stars_and_send_on_whose_request_it_is(
    start, recorder, version: str, color: str
) -> None:
    recorder.answers = [STARS]
    reviews = Reviews(version, f"http://127.0.0.1:{start(recorder.answer).port}/ratings", "p", "c")
    said = start(reviews.answer).ask("/reviews/5", end_user="jason", traceparent="00-1", x_other="no")
    assert said.value["clustername"] == "c"
    assert ratings_of(said.value) == [{"stars": 5, "color": color}, {"stars": 4, "color": color}]
    (asked,) = recorder.asked
    assert asked.path == "/ratings/5"
    assert (asked.headers["end-user"], asked.headers["traceparent"]) == ("jason", "00-1")
    assert "x-other" not in asked.headers


@pytest.mark.parametrize(
    "wrong", [json_answer({}, 500), json_answer([]), json_answer({"ratings": 3}), Answer(200, b"x")]
)
def test_without_ratings_the_reviews_say_so(start, recorder: Recorder, wrong: Answer) -> None:
    recorder.answers = [wrong]
    reviews = Reviews("v2", f"http://127.0.0.1:{start(recorder.answer).port}/ratings", "p")
    said = start(reviews.answer).ask("/reviews/0")
    assert said.status == 200
    assert ratings_of(said.value) == [UNAVAILABLE, UNAVAILABLE]


def test_a_reviewer_without_stars_is_told_apart(start, recorder: Recorder) -> None:
    recorder.answers = [json_answer({"ratings": {"Reviewer2": 1}})]
    reviews = Reviews("v2", f"http://127.0.0.1:{start(recorder.answer).port}/ratings", "p")
    said = start(reviews.answer).ask("/reviews/0").value
    assert ratings_of(said) == [{"error": "no rating"}, {"stars": 1, "color": "black"}]


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/health", 200, b"Reviews is healthy"),
        ("/reviews/x", 400, b"numeric product id"),
        ("/", 404, b"nothing"),
    ],
)
def test_everything_else_is_answered_too(path: str, status: int, text: bytes) -> None:
    said = Reviews("v1", "", "p").answer(Request("GET", path, {}))
    assert said.status == status
    assert text in said.body
