"""The API server and our credentials are found where kubectl and client-go find them."""

import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import trio

from tests.kube.test_load import kubeconfig
from ztunnel.errors import ConfigError
from ztunnel.identity.serving import make_serving
from ztunnel.identity.sign import open_authority
from ztunnel.kube.connect import open_api
from ztunnel.kube.failure import ApiFailure
from ztunnel.kube.resource import PODS


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


@pytest.fixture
def account(tmp_path):
    """A service account's files, and the authority that signs for its API server."""
    authority = open_authority(tmp_path / "authority")
    place = tmp_path / "account"
    place.mkdir()
    (place / "token").write_text("pod-token\n")
    (place / "ca.crt").write_text(authority.roots_pem)
    return place, authority


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_in_a_pod_its_service_account_is_used(account, tmp_path, monkeypatch, host):
    place, authority = account
    serving = make_serving(authority, [host], timedelta(days=1), datetime.now(UTC))
    file = tmp_path / "serving.pem"
    file.write_text(serving.key_pem + serving.chain_pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    seen = []

    async def serve(stream):
        seen.append((await stream.receive_some()).decode())
        body = b'{"items":[]}'
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_ssl_over_tcp, serve, 0, context, host=host))
        port = listener.transport_listener.socket.getsockname()[1]
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
        async with open_api(account=place) as api:
            assert (await api.list(PODS))["items"] == []
        nursery.cancel_scope.cancel()
    assert "authorization: bearer pod-token\r\n" in seen[0].lower()


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("ca.crt", "none", "certificate"),
        ("ca.crt", None, "No such file"),
        ("token", "\n", "token is empty"),
        ("token", None, "No such file"),
    ],
)
async def test_a_service_account_that_cannot_be_used_is_said(account, monkeypatch, file, text, words):
    place, _ = account
    if text is None:
        (place / file).unlink()
    else:
        (place / file).write_text(text)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    with pytest.raises(ConfigError, match=f"{place}: cannot be used .*{words}"):
        async with open_api(account=place):
            raise AssertionError


def test_a_pod_of_the_cluster_needs_no_reader_of_kubeconfigs():
    code = "import sys, ztunnel.kube.connect; print({'lightkube', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
