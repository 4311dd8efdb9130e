"""What commands that run a part of the mesh have in common: settings, upstreams, clean errors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from ztunnel.config import Settings, misspelt, read_settings
from ztunnel.control.connect import Upstream
from ztunnel.errors import ConfigError, Fault, Unsupported

_MESH_CONFIG = Path("./etc/istio/config/mesh")


def settings_of(flags: Mapping[str, object]) -> Settings:
    """Flags over environment over mesh config file; of variables that are misspelt it warns. Raises
    ConfigError."""
    for name, meant in misspelt(os.environ).items():
        click.echo(f"Warning: environment: {name}: no such setting; did you mean {meant}?", err=True)
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
