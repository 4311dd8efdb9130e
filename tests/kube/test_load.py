"""What a kubeconfig says, as kubectl and client-go read it."""

import stat

import pytest
import trio
import yaml

from ztunnel.kube.connect import open_api
from ztunnel.kube.failure import ApiFailure
from ztunnel.kube.load import UNUSABLE, load_kubeconfig
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


def test_a_file_names_the_server_and_who_we_are(tmp_path):
    access = load_kubeconfig(kubeconfig(tmp_path / "config", "https://api:6443", token="t"))
    assert access.server == "https://api:6443"
    assert access.auth is not None
    assert load_kubeconfig(kubeconfig(tmp_path / "config")).auth is None


def test_a_context_that_is_none_is_unusable(tmp_path):
    path = tmp_path / "config"
    path.write_text("clusters: []\ncontexts: []\nusers: []\n")
    with pytest.raises(UNUSABLE):
        load_kubeconfig(str(path))


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
