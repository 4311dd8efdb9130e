"""Bookinfo's `details`: what a book is.

python -m ztunnel.demo.bookinfo.details [PORT]

    GET /details/N    author, year, type, pages, publisher, language and ISBNs of book N
    GET /health
"""

from __future__ import annotations

from http import HTTPStatus

from ztunnel.demo.bookinfo.service import Answer, Request, health, json_answer, not_found, product_of, serve


def answer(request: Request) -> Answer:
    """To any request."""
    if request.path == "/health":
        return health("Details")
    if not request.path.startswith("/details/"):
        return not_found()
    number = product_of(request.path, "details")
    if number is None:
        return json_answer({"error": "please provide numeric product id"}, HTTPStatus.BAD_REQUEST)
    return json_answer(
        {
            "id": number,
            "author": "William Shakespeare",
            "year": 1595,
            "type": "paperback",
            "pages": 200,
            "publisher": "PublisherA",
            "language": "English",
            "ISBN-10": "1234567890",
            "ISBN-13": "123-1234567890",
        }
    )


if __name__ == "__main__":
    serve(answer)
