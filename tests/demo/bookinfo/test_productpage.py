import json
from collections.abc import Callable

import pytest

from tests.demo.bookinfo.conftest import Client, Recorder
from ztunnel.demo.bookinfo.productpage import ProductPage, services_of
from ztunnel.demo.bookinfo.service import json_answer

Page = tuple[Client, Recorder]


@pytest.fixture
def page(start: Callable[..., Client], recorder: Recorder) -> Page:
    """The product page, and one service that stands for all the others."""
    port = start(recorder.answer).port
    services = {name: f"http://127.0.0.1:{port}/{name}" for name in ("details", "reviews", "ratings")}
    return start(ProductPage(services, b"key").answer), recorder


def sign_in(client: Client, user: str) -> str:
    said = client.ask(
        "/login", "POST", f"username={user}&passwd=x".encode(), referer="http://h/productpage?u=test"
    )
    assert (said.status, said.headers["location"]) == (302, "/productpage")
    return said.headers["set-cookie"].partition(";")[0]


def test_the_page_is_made_of_what_details_and_reviews_say(page: Page) -> None:
    client, services = page
    services.answers = [
        json_answer({"type": "paperback"}),
        json_answer({"podname": "reviews-v1-a", "reviews": []}),
    ]
    said = client.ask("/productpage?u=normal", x_b3_traceid="7", x_other="no")
    assert said.status == 200
    assert said.headers["content-type"] == "text/html; charset=utf-8"
    assert b"paperback" in said.body
    assert b"reviews-v1-a" in said.body
    assert [one.path for one in services.asked] == ["/details/0", "/reviews/0"]
    assert {one.headers["x-b3-traceid"] for one in services.asked} == {"7"}
    assert not any({"x-other", "end-user"} & one.headers.keys() for one in services.asked)


def test_reviews_are_asked_twice_and_details_once(page: Page) -> None:
    client, services = page
    services.answers = [json_answer({}, 503)] * 3
    said = client.ask("/productpage")
    assert said.status == 200
    assert b"Sorry, product reviews are currently unavailable for this book." in said.body
    assert b"Sorry, product details are currently unavailable for this book." in said.body
    assert [one.path for one in services.asked] == ["/details/0", "/reviews/0", "/reviews/0"]


def test_who_signs_in_is_told_to_the_others(page: Page) -> None:
    client, services = page
    cookie = sign_in(client, "jason")
    assert b"jason" in client.ask("/productpage", cookie=f"other=1; {cookie}").body
    assert {one.headers["end-user"] for one in services.asked} == {"jason"}
    out = client.ask("/logout", cookie=cookie)
    assert out.status == 302
    assert "Max-Age=0" in out.headers["set-cookie"]


@pytest.mark.parametrize(
    "cookie",
    [
        "session=6a61736f6e.00",
        "session=6a61736f6e",
        "session=zz.zz",
        "session=",
        "session=6a.\xe9",
        "=;=",
        "",
    ],
)
def test_nobody_is_believed_to_be_somebody_without_our_signature(page: Page, cookie: str) -> None:
    client, services = page
    client.ask("/api/v1/products/0", cookie=cookie, end_user="jason")
    assert "end-user" not in services.asked[0].headers


@pytest.mark.parametrize("user", ["%0d%0aset-cookie:%20a=b", "%C3%A9"])
def test_a_name_that_is_no_field_value_is_refused(page: Page, user: str) -> None:
    assert page[0].ask("/login", "POST", f"username={user}".encode()).status == 400


def test_a_page_of_another_server_is_not_gone_back_to(page: Page) -> None:
    said = page[0].ask("/login", "POST", b"username=a", referer="http://evil//evil.example/")
    assert said.headers["location"] == "/productpage"


@pytest.mark.parametrize(
    ("path", "service"),
    [("/api/v1/products/3", "/details/3"), ("/api/v1/products/3/reviews", "/reviews/3"),
     ("/api/v1/products/3/ratings", "/ratings/3")],
)  # fmt: skip
def test_what_a_service_says_is_to_be_had_as_it_is(page: Page, path: str, service: str) -> None:
    client, services = page
    services.answers = [json_answer({"id": 3}), json_answer({}, 404), json_answer({}, 404)]
    assert client.ask(path).value == {"id": 3}
    failed = client.ask(path)
    assert failed.status == 404
    assert "currently unavailable" in json.dumps(failed.value)
    assert {one.path for one in services.asked} == {service}


def test_a_service_that_does_not_answer_is_an_error_of_ours(start) -> None:
    services = dict.fromkeys(("details", "reviews", "ratings"), "http://127.0.0.1:1/x")
    assert start(ProductPage(services, b"k").answer).ask("/api/v1/products/0").status == 500


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/", 200, b"productpage?u=test"),
        ("/health", 200, b"Product page is healthy"),
        ("/api/v1/products", 200, b"The Comedy of Errors"),
        ("/api/v1/products/x", 400, b"numeric product id"),
        ("/api/v1/products/1/other", 404, b"nothing"),
        ("/nowhere", 404, b"nothing"),
    ],
)
def test_everything_else_is_answered_too(page: Page, path: str, status: int, text: bytes) -> None:
    said = page[0].ask(path)
    assert said.status == status
    assert text in said.body


def test_where_the_others_are_is_said_by_the_environment() -> None:
    assert services_of({}) == {
        name: f"http://{name}:9080/{name}" for name in ("details", "reviews", "ratings")
    }
    known = {
        "SERVICES_DOMAIN": "b.svc",
        "REVIEWS_HOSTNAME": "r",
        "RATINGS_SERVICE_PORT": "1",
        "DETAILS_URL": "http://d",
    }
    assert services_of(known) == {
        "details": "http://d", "reviews": "http://r.b.svc:9080/reviews", "ratings": "http://ratings.b.svc:1/ratings"
    }  # fmt: skip
