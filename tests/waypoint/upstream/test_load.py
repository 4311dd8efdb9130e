"""Contexts of TLS, by what they are made of."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from tests.waypoint.tls_side import authority, server_paths
from ztunnel.errors import TlsFailed
from ztunnel.model.traffic import ClientTls, TlsMode
from ztunnel.waypoint.upstream.load import Contexts

__all__ = ["authority", "server_paths"]


def test_files_are_read_again_when_they_have_changed(authority, tmp_path):
    contexts = Contexts()
    path = tmp_path / "roots.pem"
    path.write_text(Path(authority.roots).read_text())
    policy = ClientTls(TlsMode.SIMPLE, roots=str(path))
    first = contexts.of(policy, "")
    assert contexts.of(policy, "") is first
    assert contexts.of(policy, "h2") is not first
    os.utime(path, ns=(1, 1))
    assert contexts.of(policy, "") is not first
    assert first.minimum_version is ssl.TLSVersion.TLSv1_2
    path.write_text("no certificate")
    with pytest.raises(TlsFailed, match="DestinationRule tls"):
        contexts.of(policy, "")
