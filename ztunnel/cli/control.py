"""Run the control plane: what node proxies are told, and their certificates, over the network."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, NamedTuple

import click
import trio

from ztunnel import __version__
from ztunnel.ca.authenticate import Authenticator, StaticTokens, Tokens
from ztunnel.ca.caller import Caller, Refused, code_of
from ztunnel.ca.certify import PATH as CERTIFICATES
from ztunnel.ca.certify import CertificateService
from ztunnel.ca.issuance import Issuance
from ztunnel.ca.node_authorizer import NodeAuthorizer, Pods
from ztunnel.ca.pods import InventoryPods
from ztunnel.ca.secure import ServingTls
from ztunnel.ca.sign import KubernetesSigner, roots_of
from ztunnel.ca.token import read_static_tokens
from ztunnel.cli._cluster import Cluster
from ztunnel.cli._compose import settings_of, ungrouped
from ztunnel.cli._embedded import fetch_keys, follow_authority, follow_folder
from ztunnel.cli._pages import SYNC, sync_page
from ztunnel.config import Settings
from ztunnel.control.answer import PATH as DISCOVERY
from ztunnel.control.answer import Discovery
from ztunnel.control.figures import ControlFigures, register_server
from ztunnel.control.serve import Server
from ztunnel.control.status.annotate import Annotator, EnrolmentService
from ztunnel.errors import ConfigError, Fault, reason_of
from ztunnel.identity.standing import StandingAuthority
from ztunnel.kube.call import Api
from ztunnel.kube.connect import open_api
from ztunnel.pages.listen import listen
from ztunnel.rpc.answer import Peer
from ztunnel.rpc.serve import Server as RpcServer
from ztunnel.rpc.serve import Service
from ztunnel.rpc.status import RpcError
from ztunnel.run.reporting import Reporting, now
from ztunnel.run.stop import Stop
from ztunnel.telemetry.serve import Scrape, serve_metrics, serve_readiness
from ztunnel.xds.enrolment import PATH as ENROLMENT

_SOURCE, _AUTHORITY, _DRAINING = "manifests", "certificate authority", "draining"
_NOTICE_SECONDS = 2.0
"""For endpoints of our service to be without us on every node (kube-proxy)."""
_FLUSH_SECONDS = 1.0


@click.command()
@click.option("--manifests", metavar="DIR", help="Folder of manifests; without, Kubernetes is the source.")
@click.option(
    "--kubeconfig", metavar="FILE", help="Of the cluster; in a pod of it there is no need (KUBECONFIG)."
)
@click.option("--adopt", is_flag=True, default=None, help="Take over the names and statuses of an istiod.")
@click.option(
    "--tokens", metavar="FILE", help="Who may call: lines of token,user,uid,... (ZTUNNEL_TOKEN_FILE)."
)
@click.option("--state-dir", metavar="DIR", help="Files that survive a restart: the key of our own CA.")
@click.option(
    "--root-ca-dir", metavar="DIR", help="Folder with your own CA, as Istio's cacerts (ROOT_CA_DIR)."
)
@click.option("--grpc-address", metavar="IP:PORT", help="For node proxies; [::]:15012 by default.")
@click.option("--log-level", metavar="LEVELS", help="error, warn, info, debug, trace; or scope=level,...")
def control(**flags: Any) -> None:
    """Run the control plane until SIGTERM. Every setting is an environment variable as well."""
    flags["token_file"] = flags.pop("tokens")
    settings = settings_of(flags)
    if settings.manifests is not None and settings.token_file is None:
        raise click.UsageError("who may call? Give --tokens FILE")
    in_cluster = settings.kubeconfig or "KUBERNETES_SERVICE_HOST" in os.environ
    if settings.manifests is not None and settings.signer_name:
        raise click.UsageError("ZTUNNEL_SIGNER_NAME is for Kubernetes as the source: leave out --manifests")
    if settings.manifests is None and not in_cluster:
        raise click.UsageError("what is the mesh? Give --manifests DIR, or --kubeconfig FILE")
    with ungrouped():
        trio.run(_run, settings)


def _read_tokens(file: Path, settings: Settings) -> Mapping[bytes, Caller]:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(Fault(str(file), 0, "", f"cannot be read: {reason_of(error)}")) from error
    return read_static_tokens(text, str(file), settings.trust_domain, settings.trusted_accounts[0])


@dataclass(frozen=True, slots=True)
class _Listeners:
    grpc: trio.SocketListener
    metrics: trio.SocketListener
    readiness: trio.SocketListener


async def _listen(stack: ExitStack, settings: Settings) -> _Listeners:
    """Open until `stack` is left. Raises ConfigError: a port is taken."""
    opened = []
    for name, address, variable in (
        ("gRPC", settings.grpc_address, "ZTUNNEL_GRPC_ADDRESS"),
        ("monitoring", settings.monitoring_address, "ZTUNNEL_MONITORING_ADDRESS"),
        ("readiness", settings.readiness_address, "ZTUNNEL_READINESS_ADDRESS"),
    ):
        opened.append(await listen(name, address, variable, settings.ipv6))
        stack.callback(opened[-1].socket.close)
    return _Listeners(*opened)


async def _run(settings: Settings) -> None:
    reporting, stop = Reporting(settings, "pilot", [_SOURCE, _AUTHORITY]), Stop()
    with reporting.forward_logging(), ExitStack() as stack:
        async with _open_source(settings) as api, trio.open_nursery() as nursery:
            await nursery.start(stop.hear)
            nursery.start_soon(reporting.writer.run)
            with stop.starting:
                listeners = await _listen(stack, settings)
                server = Server()
                _serve_pages(nursery, reporting, listeners, server)
                await nursery.start(server.run)
                rpc = await _start(nursery, settings, reporting, _Source(server, api))
                await nursery.start(rpc.run, [listeners.grpc])
                port = listeners.grpc.socket.getsockname()[1]
                reporting.log.info("ready", version=__version__, cluster=settings.cluster, port=port)
                stop.started()
                await stop.asked.wait()
                await _drain(settings, reporting, rpc, stop)
            nursery.cancel_scope.cancel()


def _serve_pages(nursery: trio.Nursery, reporting: Reporting, listeners: _Listeners, server: Server) -> None:
    scrape = Scrape(reporting.metrics, reporting.figures)
    more = {SYNC: sync_page(server, now)}
    nursery.start_soon(serve_metrics, [listeners.metrics], scrape, reporting.boundary, more)
    nursery.start_soon(serve_readiness, [listeners.readiness], reporting.readiness, reporting.boundary)


@asynccontextmanager
async def _open_source(settings: Settings) -> AsyncIterator[Api | None]:
    """The Kubernetes API, where that is the source."""
    if settings.manifests is not None:
        yield None
        return
    async with open_api(settings.kubeconfig) as api:
        yield api


class _Mesh(NamedTuple):
    """What is served for: who signs, who may call, which pods there are, and who writes on them."""

    authority: StandingAuthority
    tokens: Tokens
    pods: Pods
    annotator: Annotator | None = None


class _Source(NamedTuple):
    """Where the world comes from, the Kubernetes API or a folder, and what it is told to."""

    server: Server
    api: Api | None


async def _follow(nursery: trio.Nursery, settings: Settings, reporting: Reporting, source: _Source) -> _Mesh:
    """Everything of the source, once it has been read."""
    server = source.server
    keys = fetch_keys(nursery, settings, reporting)
    if source.api is not None:
        cluster = Cluster(source.api, settings, reporting, server)
        cluster.watch.keys = keys
        server.asked = cluster.watch.ask_keys
        await cluster.follow(nursery, reporting.readiness.done)
        return _Mesh(cluster.authority, cluster.tokens, cluster.watch.pods, cluster.annotator)
    assert settings.token_file is not None
    callers = _read_tokens(settings.token_file, settings)
    watch, _ = await follow_folder(nursery, settings, reporting, server, keys)
    reporting.readiness.done(_SOURCE)
    authority = await follow_authority(nursery, settings, reporting)
    reporting.readiness.done(_AUTHORITY)
    return _Mesh(authority, StaticTokens(callers), InventoryPods(lambda: watch.inventory))


async def _start(
    nursery: trio.Nursery, settings: Settings, reporting: Reporting, source: _Source
) -> RpcServer:
    """Everything but the port for node proxies."""
    server, log = source.server, reporting.log.scoped("control")
    mesh = await _follow(nursery, settings, reporting, source)
    tls = ServingTls(mesh.authority, settings.serving_names, now)
    nursery.start_soon(tls.run)
    authenticate = Authenticator(mesh.authority, settings.trust_domain, now, mesh.tokens)
    authorizer = NodeAuthorizer(mesh.pods, settings.trusted_accounts, settings.trust_domain)
    issuance = Issuance(reporting.log.scoped("ca"))
    issuance.register(reporting.figures)
    nursery.start_soon(_flush, issuance)
    figures = ControlFigures(reporting.figures, __version__, lambda: server.sessions)
    server.acknowledged = figures.acknowledged
    discovery = Discovery(server, authenticate.identify, figures, log)
    certificates = CertificateService(mesh.authority, authenticate, authorizer, issuance, now)
    if settings.signer_name and source.api is not None:
        name, roots = settings.signer_name, roots_of(settings.signer_root)
        roots()  # what is wrong with them is said at the start
        certificates.signer = KubernetesSigner(source.api, name, roots, now, _request_name)
    methods = {DISCOVERY: discovery.stream, CERTIFICATES: certificates.create_certificate}
    if mesh.annotator is not None:
        identify = partial(node_of, authenticate, authorizer)
        methods[ENROLMENT] = EnrolmentService(mesh.annotator, identify).report
    rpc = RpcServer(
        Service(
            methods=methods,
            context=tls.context,
            boundary=reporting.boundary,
            rng=Random(SystemRandom().getrandbits(64)),
        )
    )
    register_server(reporting.figures, rpc)
    return rpc


async def node_of(
    authenticate: Authenticator, authorizer: NodeAuthorizer, metadata: Mapping[str, str], peer: Peer
) -> str:
    """The node of the node proxy that calls. Raises RpcError."""
    try:
        return authorizer.reporter(await authenticate(metadata, peer))
    except Refused as refused:
        raise RpcError(code_of(refused.reason), str(refused)) from refused


def _request_name() -> str:
    return f"ztunnel-{SystemRandom().getrandbits(80):020x}"


async def _flush(issuance: Issuance) -> None:
    while True:
        await trio.sleep(_FLUSH_SECONDS)
        issuance.flush(trio.current_time())


async def _drain(settings: Settings, reporting: Reporting, rpc: RpcServer, stop: Stop) -> None:
    """Node proxies are sent to other replicas; those that stay until the deadline are left. Before that,
    whoever does not know yet that this one leaves is still served."""
    reporting.log.info("draining", connections=rpc.connections)
    reporting.readiness.pend(_DRAINING)
    async with trio.open_nursery() as nursery:

        async def end_at_once() -> None:
            await stop.urged.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(end_at_once)
        await trio.sleep(min(_NOTICE_SECONDS, settings.termination_deadline_seconds / 2))
        await rpc.drain(settings.termination_deadline_seconds)
        nursery.cancel_scope.cancel()
    reporting.log.info("ended")
