import pytest

from ztunnel.demo.bookinfo.details import answer
from ztunnel.demo.bookinfo.service import Request


def test_a_book_has_details(start) -> None:
    said = start(answer).ask("/details/7")
    assert said.status == 200
    assert said.headers["content-type"] == "application/json"
    assert said.value == {
        "id": 7, "author": "William Shakespeare", "year": 1595, "type": "paperback", "pages": 200,
        "publisher": "PublisherA", "language": "English", "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/health", 200, b"Details is healthy"),
        ("/details/x", 400, b"numeric product id"),
        ("/", 404, b"nothing"),
    ],
)
def test_everything_else_is_answered_too(path: str, status: int, text: bytes) -> None:
    said = answer(Request("GET", path, {}))
    assert said.status == status
    assert text in said.body
