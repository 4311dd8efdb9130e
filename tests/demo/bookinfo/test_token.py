import json
from base64 import urlsafe_b64decode
from datetime import UTC, datetime

import pytest

from tests.demo.bookinfo.conftest import Staged, walked
from ztunnel.demo.bookinfo.token import STEP
from ztunnel.demo.bookinfo.visit import Visit


def claims_of(headers: list[str]) -> dict[str, object]:
    middle = headers[0].split(".")[1]
    return json.loads(urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))


class Gate:
    """Lets in as the policy says, but for what `wrong` names; it cannot see who signed, and remembers that a
    token of the same claims has been shown."""

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong
        self.shown: list[str] = []

    def scene(self, count: int, *, path: str, headers: list[str], **_: object) -> list[Visit]:
        return [Visit(self.status(path, headers), 0.0) for _ in range(count)]

    def status(self, path: str, headers: list[str]) -> int:
        if not headers:
            return 200 if path == "/productpage" or self.wrong == "none" else 403
        if claims_of(headers)["exp"] < datetime.now(UTC).timestamp():
            return 200 if self.wrong == "expired" else 401
        first = not self.shown or self.shown[0] == headers[0]
        self.shown = self.shown or list(headers)
        return 200 if first or self.wrong == "stranger" else 401


def test_it_holds_where_tokens_are_looked_at() -> None:
    place = Staged(Gate().scene)
    assert walked(STEP, place) == []
    kinds = [one.key.kind for one in place.manifests]
    assert kinds == ["AuthorizationPolicy", "RequestAuthentication"]
    assert place.deleted == place.manifests


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("none", "without a token"), ("expired", "has expired"), ("stranger", "somebody else signed")],
)
def test_it_does_not_hold_where_one_of_them_is_not(wrong: str, said: str) -> None:
    assert any(said in line for line in walked(STEP, Staged(Gate(wrong).scene)))
