"""Reads a kubeconfig: for tools, and for a control plane outside of its cluster. In a pod there is none, and
six megabytes less.

lightkube reads the file and makes the TLS context.
"""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Mapping
from os import environ
from pathlib import Path
from typing import Final

import httpx2
import yaml
from lightkube.config.client_adapter import verify_cluster
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError as KubeConfigError

from ztunnel.kube.authenticate import TOKEN_SECONDS, Access, BearerAuth, read_token

_EXEC_SECONDS: Final = 30.0

UNUSABLE: Final = (
    KubeConfigError, OSError, ssl.SSLError, yaml.YAMLError,
    AttributeError, KeyError, TypeError, ValueError,
)  # fmt: skip
"""What lightkube raises for a kubeconfig that is none."""


def load_kubeconfig(file: str) -> Access:
    """The API server of the current context. Raises one of `UNUSABLE`."""
    config = KubeConfig.from_file(file).get()
    if config is None:
        raise KubeConfigError("no context is current")
    context = verify_cluster(config.cluster, config.user or User(), config.abs_file)
    return Access(str(config.cluster.server), context, _auth(config))


def _auth(config: SingleConfig) -> httpx2.Auth | None:
    user = config.user
    if user is None:
        return None
    if user.token_file:
        path = Path(config.abs_file(user.token_file))
        return BearerAuth(lambda: read_token(path))
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
    return str(token), TOKEN_SECONDS
