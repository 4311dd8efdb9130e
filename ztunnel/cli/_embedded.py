"""Parts of a control plane, and one that is embedded in a node proxy: a folder of manifests, and what signs.

A node proxy whose control plane is elsewhere imports none of it.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random, SystemRandom

import trio

from ztunnel.ca.authority import NodeCertificates, OwnCertificates
from ztunnel.ca.authority_report import AuthorityReport
from ztunnel.cli._compose import ca_upstream
from ztunnel.config import Settings
from ztunnel.control.fetch import NetworkCertificates
from ztunnel.control.keys.fetch_keys import KeyClient, Keys
from ztunnel.control.keys.reach import Reach
from ztunnel.control.serve import Server
from ztunnel.control.settings import mesh_settings
from ztunnel.control.source.report import ManifestReport
from ztunnel.control.source.watch import FolderWatch
from ztunnel.errors import ConfigError, Fault
from ztunnel.identity.rotate import CertificateSource
from ztunnel.identity.standing import StandingAuthority
from ztunnel.identity.watch import AuthorityWatch
from ztunnel.run.follow import ControlPlane
from ztunnel.run.reporting import Reporting, now


async def node_plane(nursery: trio.Nursery, settings: Settings, reporting: Reporting) -> ControlPlane:
    """For a node proxy, serving in `nursery` once its folder has been read."""
    server = Server()
    _, report = await follow_folder(nursery, settings, reporting, server)
    signer = await _signer(
        nursery, settings, reporting, lambda own: NodeCertificates(own, server, settings.node, now)
    )
    await nursery.start(server.run)
    return ControlPlane(server.session, signer, report.dump)


async def waypoint_plane(nursery: trio.Nursery, settings: Settings, reporting: Reporting) -> ControlPlane:
    """For a waypoint; keys of issuers are fetched, too."""
    server = Server()
    keys = fetch_keys(nursery, settings, reporting)
    _, report = await follow_folder(nursery, settings, reporting, server, keys)
    uid = f"{settings.cluster}//Pod/{settings.pod_namespace}/{settings.pod_name}"
    signer = await _signer(nursery, settings, reporting, lambda own: OwnCertificates(own, server, uid, now))
    await nursery.start(server.run)
    return ControlPlane(server.session, signer, report.dump)


async def _signer(
    nursery: trio.Nursery,
    settings: Settings,
    reporting: Reporting,
    own: Callable[[StandingAuthority], CertificateSource],
) -> CertificateSource:
    """Who signs: elsewhere, if the settings say so."""
    if settings.ca_address:
        return NetworkCertificates(ca_upstream(settings))
    return own(await follow_authority(nursery, settings, reporting))


async def follow_folder(
    nursery: trio.Nursery, settings: Settings, reporting: Reporting, server: Server, keys: Keys | None = None
) -> tuple[FolderWatch, ManifestReport]:
    """A folder of manifests, which `server` serves from now on, with the keys of issuers that `keys` has;
    started when it has been read.

    Raises:
        ConfigError: nothing of it can be read, and nothing was remembered.
    """
    assert settings.manifests is not None
    report = ManifestReport(reporting.log.scoped("control"), reporting.readiness, settings.root_namespace)
    report.register(reporting.figures)
    memory = settings.state_dir / "manifests" / "last-good.json"
    watch = FolderWatch(
        settings.manifests, mesh_settings(settings), server.publish, lambda: report.observe(watch), memory
    )
    watch.keys = keys or watch.keys
    server.asked = watch.ask_keys
    await nursery.start(watch.run)
    if not watch.inventory.objects and watch.faults:
        raise ConfigError(*watch.faults)
    return watch, report


def fetch_keys(nursery: trio.Nursery, settings: Settings, reporting: Reporting) -> Keys:
    """The keys of issuers, fetched in `nursery`. Raises ConfigError: ZTUNNEL_JWKS_ROOT_CA is of no use."""
    reach = Reach(settings.jwks_allowed, settings.jwks_blocked)
    file = str(settings.jwks_root_ca or "")
    try:
        client = KeyClient(reach, file)
    except OSError as error:  # an SSLError is one
        raise ConfigError(Fault("settings", 0, "ZTUNNEL_JWKS_ROOT_CA", f"{file}: {error}")) from error
    keys = Keys(client, Random(SystemRandom().getrandbits(64)), settings.jwks_refresh_seconds)
    keys.register(reporting.figures)
    nursery.start_soon(keys.run)
    return keys


async def follow_authority(
    nursery: trio.Nursery, settings: Settings, reporting: Reporting
) -> StandingAuthority:
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
