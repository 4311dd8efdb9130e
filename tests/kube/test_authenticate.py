"""A bearer token is fetched anew when its time has passed, and when the server does not know it."""

import httpx2
import pytest

from ztunnel.kube.authenticate import BearerAuth, read_token


def served(tokens):
    """A client of a server that knows these tokens, and the tokens that it was shown."""
    shown = []

    def transport(request):
        shown.append(request.headers["authorization"].removeprefix("Bearer "))
        return httpx2.Response(200 if shown[-1] in tokens else 401, json={})

    return httpx2.MockTransport(transport), shown


async def test_a_token_that_was_replaced_is_read_again():
    tokens = ["old", "new", "newer"]
    transport, shown = served({"new", "newer"})
    auth = BearerAuth(lambda: (tokens.pop(0), 3600.0))
    async with httpx2.AsyncClient(transport=transport, auth=auth) as client:
        assert (await client.get("https://api/")).status_code == 200
        assert (await client.get("https://api/")).status_code == 200
    assert shown == ["old", "new", "new"]


async def test_a_token_is_read_again_after_its_time():
    tokens = ["a", "b"]
    transport, shown = served({"a", "b"})
    auth = BearerAuth(lambda: (tokens.pop(0), 0.0))
    async with httpx2.AsyncClient(transport=transport, auth=auth) as client:
        await client.get("https://api/")
        await client.get("https://api/")
    assert shown == ["a", "b"]


async def test_a_wrong_token_is_shown_once_where_there_is_no_other():
    transport, shown = served(set())
    async with httpx2.AsyncClient(transport=transport, auth=BearerAuth(lambda: ("a", 60.0))) as client:
        assert (await client.get("https://api/")).status_code == 401
    assert shown == ["a"]


async def test_a_token_that_cannot_be_read_is_no_answer_and_an_old_one_goes_on():
    transport, shown = served({"a"})
    answers = [("a", 0.0)]

    def fetch():
        if answers:
            return answers.pop()
        raise OSError(13, "Permission denied")

    async with httpx2.AsyncClient(transport=transport, auth=BearerAuth(fetch)) as client:
        await client.get("https://api/")
        await client.get("https://api/")
        assert shown == ["a", "a"]
    async with httpx2.AsyncClient(transport=transport, auth=BearerAuth(fetch)) as client:
        with pytest.raises(httpx2.TransportError, match="Permission denied"):
            await client.get("https://api/")


def test_a_file_without_a_token_is_named(tmp_path):
    file = tmp_path / "token"
    file.write_text("t\n")
    assert read_token(file)[0] == "t"
    file.write_text("\n")
    with pytest.raises(ValueError, match=f"{file} is empty"):
        read_token(file)
