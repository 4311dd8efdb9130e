"""How the Kubernetes API server is found and who we are to it: a kubeconfig, or the service account of the
pod.

lightkube reads the kubeconfig and makes the TLS context. Requests are ours (`call.py`): its client can
neither be told what to do about errors, nor kept from making models of whole objects, of which a reader here
takes a tenth (a page of 500 pods: 126 ms, and 74 ms as plain values)."""

from __future__ import annotations

import json
import ssl
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from os import environ
from pathlib import Path
from typing import Final

import httpx2
import trio
import yaml
from lightkube.config.client_adapter import verify_cluster
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError as KubeConfigError

from ztunnel.errors import ConfigError, Fault
from ztunnel.kube.call import Api

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_SECONDS: Final = 60.0
"""How long a token that was read from a file counts: the kubelet replaces it long before it expires."""
_EXEC_SECONDS: Final = 30.0
_CONNECTIONS: Final = 100


_UNUSABLE: Final = (
    KubeConfigError, OSError, ssl.SSLError, yaml.YAMLError,
    AttributeError, KeyError, TypeError, ValueError,
)  # fmt: skip
"""What lightkube raises for a kubeconfig that is none."""


@asynccontextmanager
async def open_api(kubeconfig: str = "", account: Path = ACCOUNT) -> AsyncGenerator[Api, None]:
    """The API server of `kubeconfig`, or of the pod that this runs in; `kubeconfig` wins.

    Raises:
        ConfigError: neither is there, or what is there cannot be used.
    """
    in_cluster = not kubeconfig and "KUBERNETES_SERVICE_HOST" in environ
    source = str(account) if in_cluster else kubeconfig or "~/.kube/config"
    try:
        config = (
            KubeConfig.from_service_account(account) if in_cluster else KubeConfig.from_file(source)
        ).get()
        if config is None:
            raise KubeConfigError("no context is current")
        # In a cluster no proxy of the environment stands between us and the API server.
        context = verify_cluster(config.cluster, config.user or User(), config.abs_file, not in_cluster)
        auth = _auth(config)
    except _UNUSABLE as error:
        text = f"cannot be used as a Kubernetes client's configuration: {error or type(error).__name__}"
        raise ConfigError(Fault(source, 0, "", text)) from error
    async with httpx2.AsyncClient(
        base_url=config.cluster.server,
        verify=context,
        auth=auth,
        trust_env=not in_cluster,
        limits=httpx2.Limits(max_connections=_CONNECTIONS),
    ) as client:
        yield Api(client, str(config.cluster.server))


def _auth(config: SingleConfig) -> httpx2.Auth | None:
    user = config.user
    if user is None:
        return None
    if user.token_file:
        path = Path(config.abs_file(user.token_file))
        return BearerAuth(lambda: _read_token(path))
    if user.token:
        token = user.token
        return BearerAuth(lambda: (token, float("inf")))
    if user.exec:
        command, extra = [user.exec.command, *(user.exec.args or [])], user.exec.env or []
        version = str(user.exec.apiVersion)
        variables = {one.name: one.value for one in extra}
        return BearerAuth(lambda: _run_plugin(command, variables, version))
    if user.username and user.password:
        return httpx2.BasicAuth(user.username, user.password)
    return None


class BearerAuth(httpx2.Auth):
    """A bearer token from where `fetch` gets it: the token, and the seconds that it may be used. It is
    fetched anew when these have passed, and once when the server does not know it."""

    def __init__(self, fetch: Callable[[], tuple[str, float]]) -> None:
        """`fetch` blocks; it runs in a thread. It raises OSError or ValueError."""
        self._fetch = fetch
        self._token = ""
        self._until = float("-inf")

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        used = await self._current(anew=False)
        request.headers["Authorization"] = f"Bearer {used}"
        response = yield request
        if response.status_code == 401:
            fresh = await self._current(anew=True)
            if fresh != used:
                request.headers["Authorization"] = f"Bearer {fresh}"
                yield request

    async def _current(self, *, anew: bool) -> str:
        if anew or time.monotonic() >= self._until:
            try:
                self._token, seconds = await trio.to_thread.run_sync(self._fetch)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                if not self._token:
                    raise httpx2.TransportError(f"no token: {error}") from error
                seconds = _TOKEN_SECONDS  # the one that we have may still be good
            self._until = time.monotonic() + seconds
        return self._token


def _read_token(path: Path) -> tuple[str, float]:
    token = path.read_text().strip()
    if not token:
        raise ValueError(f"{path} is empty")
    return token, _TOKEN_SECONDS


def _run_plugin(command: list[str], extra: Mapping[str, str], version: str) -> tuple[str, float]:
    """What a credential plugin of a kubeconfig prints (client-go: exec credential plugins)."""
    asked = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    variables = {**environ, "KUBERNETES_EXEC_INFO": json.dumps(asked), **extra}
    try:
        done = subprocess.run(
            command, env=variables, capture_output=True, timeout=_EXEC_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.SubprocessError as error:
        raise ValueError(f"{command[0]}: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[:200]
        raise ValueError(f"{command[0]} ended with {done.returncode}{said and f': {said}'}")
    try:
        status = json.loads(done.stdout)["status"]
        token = status.get("token") or ""
    except (AttributeError, KeyError, TypeError, ValueError):
        token = ""
    if not token:
        raise ValueError(f"{command[0]} printed no token")
    return str(token), _TOKEN_SECONDS
