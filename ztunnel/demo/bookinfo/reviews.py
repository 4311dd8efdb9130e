"""Bookinfo's `reviews`: what two readers say of a book. v1 shows no stars, v2 black ones, v3 red ones.

python -m ztunnel.demo.bookinfo.reviews [PORT]

    GET /reviews/N    the reviews, with the stars that ratings says where SERVICE_VERSION is v2 or v3
    GET /health

RATINGS_URL is where the ratings are, by default `http://ratings:9080/ratings`. A version with black stars
waits ten seconds for them, one with red stars two and a half, as in the original.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from http import HTTPStatus

from ztunnel.demo.bookinfo.service import (
    Answer,
    Request,
    call,
    health,
    json_answer,
    not_found,
    product_of,
    serve,
)

COLORS = {"v2": "black", "v3": "red"}
PATIENCE_SECONDS = {"black": 10.0, "red": 2.5}
_TEXTS = {
    "Reviewer1": "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!",
    "Reviewer2": "Absolutely fun and entertaining. The play lacks thematic depth when compared to other "
    "plays by Shakespeare.",
}


@dataclass(frozen=True, slots=True)
class Reviews:
    """One version of the service, in the pod of this name."""

    version: str
    ratings_url: str
    pod: str
    cluster: str = ""

    def answer(self, request: Request) -> Answer:
        """To any request."""
        if request.path == "/health":
            return health("Reviews")
        if not request.path.startswith("/reviews/"):
            return not_found()
        number = product_of(request.path, "reviews")
        if number is None:
            return json_answer({"error": "please provide numeric product id"}, HTTPStatus.BAD_REQUEST)
        stars = self._stars(number, request)
        reviews: list[dict[str, object]] = [{"reviewer": who, "text": text} for who, text in _TEXTS.items()]
        for review in reviews:
            if stars is not None:
                review["rating"] = stars.get(str(review["reviewer"]), {"error": "no rating"})
        known = {"id": str(number), "podname": self.pod, "clustername": self.cluster or "null"}
        return json_answer({**known, "reviews": reviews})

    def _stars(self, number: int, request: Request) -> dict[str, dict[str, object]] | None:
        """The `rating` of each reviewer; None in the version without."""
        color = COLORS.get(self.version)
        if color is None:
            return None
        said = call(f"{self.ratings_url}/{number}", request.propagated, PATIENCE_SECONDS[color])
        given = said.value.get("ratings") if isinstance(said.value, dict) else None
        if not isinstance(given, dict):
            return {who: {"error": "Ratings service is currently unavailable"} for who in _TEXTS}
        return {who: {"stars": stars, "color": color} for who, stars in given.items()}


if __name__ == "__main__":
    known = os.environ
    serve(
        Reviews(
            known.get("SERVICE_VERSION", "v1"),
            known.get("RATINGS_URL", "http://ratings:9080/ratings"),
            socket.gethostname(),
            known.get("CLUSTER_NAME", ""),
        ).answer
    )
