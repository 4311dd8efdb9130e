"""Run the node proxy: one for each machine, as a DaemonSet or in the laboratory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import trio

from ztunnel.config import Settings, read_settings
from ztunnel.control.authority import NodeCertificates
from ztunnel.control.authority_report import AuthorityReport
from ztunnel.control.report import ManifestReport
from ztunnel.control.serve import Server
from ztunnel.control.settings import mesh_settings
from ztunnel.control.watch import FolderWatch
from ztunnel.errors import ConfigError, Fault, Unsupported
from ztunnel.identity.standing import StandingAuthority
from ztunnel.identity.watch import AuthorityWatch
from ztunnel.kernel.probe import require_root
from ztunnel.run.follow import ControlPlane
from ztunnel.run.reporting import Reporting, now
from ztunnel.run.serve import run_node
from ztunnel.run.stop import Stop

_MESH_CONFIG = Path("./etc/istio/config/mesh")


@click.command()
@click.option("--node", metavar="NAME", help="Name of this node in the manifests (NODE_NAME).")
@click.option("--manifests", metavar="DIR", help="Folder of Kubernetes and Istio manifests.")
@click.option("--state-dir", metavar="DIR", help="Files that survive a restart: the key of our own CA.")
@click.option("--cache-dir", metavar="DIR", help="Cache of compiled eBPF programs.")
@click.option("--run-dir", metavar="DIR", help="Directory of the host where a successor finds the proxy.")
@click.option("--pins", metavar="DIR", help="Directory in a bpffs for pinned programs and maps.")
@click.option(
    "--pod-netns",
    metavar="PATH",
    help="Path of a pod's network namespace, with {namespace} and {name} in it; else the kubelet's pods.",
)
@click.option("--same-node", metavar="MODE", help="auto, direct or mtls: how pods of one node talk.")
@click.option("--log-level", metavar="LEVELS", help="error, warn, info, debug, trace; or scope:level,...")
def node(**flags: Any) -> None:
    """Run the node proxy until SIGTERM. Every setting is an environment variable as well."""
    settings = read_settings(flags, os.environ, _mesh_config(), str(_MESH_CONFIG))
    if not settings.node:
        raise click.UsageError("which node is this? Give --node NAME, or set NODE_NAME")
    if settings.manifests is None:
        raise click.UsageError("no control plane: give --manifests DIR")
    require_root()
    with _ungrouped():
        exit_code = trio.run(_run, settings)
    raise SystemExit(exit_code)


def _mesh_config() -> str:
    """Empty where there is no such file."""
    try:
        return _MESH_CONFIG.read_text() if _MESH_CONFIG.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(Fault(str(_MESH_CONFIG), 0, "", f"cannot be read: {error}")) from error


@contextmanager
def _ungrouped() -> Iterator[None]:
    """What the operator has to fix, without the groups that nurseries raise it in; bugs stay as they are."""
    try:
        yield
    except BaseExceptionGroup as group:
        to_fix, others = group.split((ConfigError, Unsupported))
        if others is not None or to_fix is None:
            raise
        raise click.ClickException("\n".join(dict.fromkeys(map(str, _leaves(to_fix))))) from None


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]


async def _run(settings: Settings) -> int:
    """A control plane over the folder, and the node proxy on it, in one process. Its exit code."""
    reporting, stop = Reporting(settings), Stop()
    with reporting.forward_logging():
        async with trio.open_nursery() as nursery:
            await nursery.start(stop.hear)
            with stop.starting:
                plane = await _control(nursery, settings, reporting)
                await run_node(settings, plane, reporting, stop)
            nursery.cancel_scope.cancel()
    return stop.exit_code


async def _control(nursery: trio.Nursery, settings: Settings, reporting: Reporting) -> ControlPlane:
    """A control plane that serves in `nursery`, once its folder has been read."""
    assert settings.manifests is not None
    mesh = mesh_settings(settings)
    server = Server()
    report = ManifestReport(reporting.log.scoped("control"), reporting.readiness, settings.root_namespace)
    report.register(reporting.figures)
    memory = settings.state_dir / "manifests" / "last-good.json"
    watch = FolderWatch(settings.manifests, mesh, server.publish, lambda: report.observe(watch), memory)
    await nursery.start(watch.run)
    if not watch.inventory.objects and watch.faults:
        raise ConfigError(*watch.faults)
    authority = await _authority(nursery, settings, reporting)
    await nursery.start(server.run)
    certificates = NodeCertificates(authority, server, settings.node, now)
    return ControlPlane(server.open_session, certificates, report.dump)


async def _authority(nursery: trio.Nursery, settings: Settings, reporting: Reporting) -> StandingAuthority:
    """What signs, watched in `nursery`: the operator's where ROOT_CA_DIR names it, else one of our own."""
    report = AuthorityReport(reporting.log.scoped("ca"), reporting.readiness, now)
    report.register(reporting.figures)
    watch = AuthorityWatch(
        settings.root_ca_dir or settings.state_dir / "ca",
        settings.trust_domain,
        now,
        lambda: report.observe(watch.authority.current, watch.faults),
        make=settings.root_ca_dir is None,
    )
    await nursery.start(watch.run)
    return watch.authority
