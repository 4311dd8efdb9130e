"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from ztunnel.analyze.ask import Place
from ztunnel.analyze.forward import NAMESPACE

Command = Callable[..., Any]


def placed(default: str = "") -> Callable[[Command], Command]:
    """Options that say which node proxy is meant; the command gets them as `place`.

    Args:
        default: the node where none is named.
    """

    def decorate(command: Command) -> Command:
        @click.option(
            "--node", default=default, metavar="NODE", help="Of a laboratory, or else of a cluster."
        )
        @click.option("--pod", default="", metavar="POD", help="A node proxy's pod in a cluster.")
        @click.option("--admin", default="", metavar="HOST:PORT", help="A node proxy's admin address.")
        @click.option("--name", default="lab", show_default=True, help="Name of the laboratory.")
        @click.option(
            "--system-namespace", default=NAMESPACE, show_default=True, help="Where node proxies run."
        )
        @wraps(command)
        def call(*, node: str, pod: str, admin: str, name: str, system_namespace: str, **others: Any) -> Any:
            return command(place=Place(admin, pod, node, name, system_namespace), **others)

        return call

    return decorate
