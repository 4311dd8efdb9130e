"""The API server and our credentials are found where kubectl and client-go find them."""

import stat

import httpx2
import pytest
import trio
import yaml

from ztunnel.errors import ConfigError
from ztunnel.kube.connect import BearerAuth, open_api
from ztunnel.kube.failure import ApiFailure
from ztunnel.kube.resource import PODS


def kubeconfig(path, server="http://127.0.0.1:1", **user):
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump(config))
    return str(path)


async def test_an_api_server_that_is_not_there_is_named(tmp_path):
    async with open_api(kubeconfig(tmp_path / "config", token="t")) as api:
        with pytest.raises(
            ApiFailure, match=r"no answer from the API server http://127.0.0.1:1 \(list pods\): .*refused"
        ):
            await api.list(PODS)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "a: [", "clusters: []\ncontexts: []\ncurrent-context: x\n", "clusters: [{}]\ncontexts: []\n"],
)
async def test_a_kubeconfig_that_cannot_be_used_is_a_fault_of_the_file(tmp_path, text):
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"{path}: cannot be used"):
        async with open_api(str(path)):
            raise AssertionError


async def test_a_kubeconfig_that_is_not_there_is_a_fault(tmp_path):
    with pytest.raises(ConfigError, match="not found"):
        async with open_api(str(tmp_path / "none")):
            raise AssertionError


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


async def requests_of(config, count=1):
    """What a server is asked by a client of `config(server address)`, of which the first lines are told."""
    seen = []

    async def serve(stream):
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        seen.append(data.decode())
        body = b'{"items":[]}'
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener, *_) = await nursery.start(trio.serve_tcp, serve, 0)
        port = listener.socket.getsockname()[1]
        async with config(f"http://127.0.0.1:{port}") as api:
            for _ in range(count):
                await api.list(PODS)
        nursery.cancel_scope.cancel()
    return seen


async def test_a_credential_plugin_is_run(tmp_path):
    plugin = tmp_path / "plugin"
    plugin.write_text(
        "#!/bin/sh\n"
        'case "$KUBERNETES_EXEC_INFO" in *client.authentication.k8s.io/v1*) ;; *) exit 3;; esac\n'
        'echo "{\\"status\\": {\\"token\\": \\"from-$WHO-$1\\"}}"\n'
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    entry = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(plugin),
        "args": ["x"],
        "env": [{"name": "WHO", "value": "me"}],
    }
    seen = await requests_of(lambda server: open_api(kubeconfig(tmp_path / "config", server, exec=entry)))
    assert "Bearer from-me-x" in seen[0]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 1", "ended with 1"),
        ("echo nothing", "printed no token"),
        ("echo '{\"status\": {}}'", "printed no token"),
    ],
)
async def test_a_credential_plugin_that_fails_is_named(tmp_path, script, words):
    entry = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script]}
    async with open_api(kubeconfig(tmp_path / "config", exec=entry)) as api:
        with pytest.raises(ApiFailure, match=f"sh {words}"):
            await api.list(PODS)


async def test_in_a_pod_its_service_account_is_used(tmp_path, monkeypatch):
    (tmp_path / "namespace").write_text("ztunnel-system")
    (tmp_path / "token").write_text("pod-token\n")
    (tmp_path / "ca.crt").write_text("none")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    with pytest.raises(ConfigError, match=str(tmp_path)):  # its CA is read, and is none
        async with open_api(account=tmp_path):
            raise AssertionError
