"""What commands that run a part of the mesh have in common: settings, sources, authority, clean errors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random, SystemRandom

import click
import trio

from ztunnel.ca.authority_report import AuthorityReport
from ztunnel.config import Settings, read_settings
from ztunnel.control.connect import Upstream
from ztunnel.control.fetch_keys import KeyClient, Keys
from ztunnel.control.reach import Reach
from ztunnel.control.report import ManifestReport
from ztunnel.control.serve import Server
from ztunnel.control.settings import mesh_settings
from ztunnel.control.watch import FolderWatch
from ztunnel.errors import ConfigError, Fault, Unsupported
from ztunnel.identity.standing import StandingAuthority
from ztunnel.identity.watch import AuthorityWatch
from ztunnel.run.reporting import Reporting, now

_MESH_CONFIG = Path("./etc/istio/config/mesh")


def settings_of(flags: Mapping[str, object]) -> Settings:
    """Flags over environment over mesh config file. Raises ConfigError."""
    return read_settings(flags, os.environ, _mesh_config(), str(_MESH_CONFIG))


@contextmanager
def ungrouped() -> Iterator[None]:
    """What the operator has to fix, without the groups that nurseries raise it in; bugs stay as they are."""
    try:
        yield
    except BaseExceptionGroup as group:
        to_fix, others = group.split((ConfigError, Unsupported))
        if others is not None or to_fix is None:
            raise
        raise click.ClickException("\n".join(dict.fromkeys(map(str, _leaves(to_fix))))) from None


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
    keys = Keys(client, Random(SystemRandom().getrandbits(64)))
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


def xds_upstream(settings: Settings) -> Upstream:
    """Where the world comes from over the network."""
    own = _cluster(settings)
    return Upstream(
        "XDS", settings.xds_address, settings.xds_root_ca, settings.xds_alternative, settings.auth_token,
        own + settings.xds_headers,
    )  # fmt: skip


def ca_upstream(settings: Settings) -> Upstream:
    """Who signs over the network."""
    own = _cluster(settings)
    return Upstream(
        "CA", settings.ca_address, settings.ca_root_ca, settings.ca_alternative, settings.auth_token,
        own + settings.ca_headers,
    )  # fmt: skip


def _cluster(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Of which cluster we are; nothing where it has no name (ztunnel src/identity/auth.rs)."""
    return (("clusterid", settings.cluster),) if settings.cluster else ()


def _mesh_config() -> str:
    """Empty where there is no such file."""
    try:
        return _MESH_CONFIG.read_text() if _MESH_CONFIG.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(Fault(str(_MESH_CONFIG), 0, "", f"cannot be read: {error}")) from error


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]
