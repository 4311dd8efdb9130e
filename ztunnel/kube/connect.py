"""How the Kubernetes API server is found and who we are to it: a kubeconfig, or the service account of the
pod.

Requests are ours (`call.py`): lightkube's client can neither be told what to do about errors, nor kept from
making models of whole objects, of which a reader here takes a tenth (a page of 500 pods: 126 ms, and 74 ms as
plain values)."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from os import environ
from pathlib import Path
from typing import Final

import httpx2

from ztunnel.errors import ConfigError, Fault
from ztunnel.kube.authenticate import Access, BearerAuth, read_token
from ztunnel.kube.call import Api

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CONNECTIONS: Final = 100


@asynccontextmanager
async def open_api(kubeconfig: str = "", account: Path = ACCOUNT) -> AsyncGenerator[Api, None]:
    """The API server of `kubeconfig`, or of the pod that this runs in; `kubeconfig` wins.

    Raises:
        ConfigError: neither is there, or what is there cannot be used.
    """
    in_cluster = not kubeconfig and "KUBERNETES_SERVICE_HOST" in environ
    access = _of_account(account) if in_cluster else _of_kubeconfig(kubeconfig or "~/.kube/config")
    async with httpx2.AsyncClient(
        base_url=access.server,
        verify=access.context,
        auth=access.auth,
        trust_env=not in_cluster,  # in a cluster no proxy of the environment stands between us and the server
        limits=httpx2.Limits(max_connections=_CONNECTIONS),
    ) as client:
        yield Api(client, access.server)


def _of_account(account: Path) -> Access:
    """As client-go's `rest.InClusterConfig`; a token that is not there, or a CA that is none, is said now."""
    token, host = account / "token", environ["KUBERNETES_SERVICE_HOST"]
    try:
        read_token(token)
        port = environ["KUBERNETES_SERVICE_PORT"]
        context = ssl.create_default_context(cafile=str(account / "ca.crt"))
    except (OSError, KeyError, ValueError) as error:
        raise _unusable(str(account), error) from error
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Access(server, context, BearerAuth(lambda: read_token(token)))


def _of_kubeconfig(file: str) -> Access:
    from ztunnel.kube.load import UNUSABLE, load_kubeconfig  # what a pod of the cluster does without

    try:
        return load_kubeconfig(file)
    except UNUSABLE as error:
        raise _unusable(file, error) from error


def _unusable(source: str, error: BaseException) -> ConfigError:
    text = f"cannot be used as a Kubernetes client's configuration: {error or type(error).__name__}"
    return ConfigError(Fault(source, 0, "", text))
