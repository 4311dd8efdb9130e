"""Questions to an admin page, and why there is no answer."""

from __future__ import annotations

import pytest

from tests.cli.test_explain import page
from ztunnel.analyze.fetch import NoAnswer, fetch


def test_a_page_is_read_by_address_or_url() -> None:
    with page(lambda path: (200, path)) as address:
        assert fetch(address, "/a?b=c") == "/a?b=c"
        assert fetch(f"http://{address}", "/a") == "/a"


def test_what_the_page_says_of_an_error_is_told() -> None:
    with (
        page(lambda path: (404, "no such pod\n")) as address,
        pytest.raises(NoAnswer, match=r": no such pod$"),
    ):
        fetch(address, "/")


@pytest.mark.parametrize("admin", ["127.0.0.1:1", "127.0.0.1:bad", "http://"])
def test_nobody_there_is_said_with_the_address(admin: str) -> None:
    with pytest.raises(NoAnswer, match=f"^{admin}: "):
        fetch(admin, "/")
