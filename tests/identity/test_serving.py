"""A control plane's certificate."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from tests.control.standing import now, standing
from ztunnel.errors import ConfigError
from ztunnel.identity.serving import make_serving


def test_it_is_for_its_names_and_from_the_authority(tmp_path: Path) -> None:
    authority = standing(tmp_path / "ca").current
    assert authority is not None
    serving = make_serving(authority, ["a.svc", "10.0.0.1", "fd00::1"], timedelta(hours=1), now())
    leaf, *others = x509.load_pem_x509_certificates(serving.chain_pem.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.svc"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "fd00::1"]
    assert not names.get_values_for_type(x509.UniformResourceIdentifier)
    store = Store(list(authority.roots))
    PolicyBuilder().store(store).build_server_verifier(x509.DNSName("a.svc")).verify(leaf, others)
    assert "PRIVATE KEY" not in repr(serving)


def test_it_ends_with_the_authority(tmp_path: Path) -> None:
    authority = standing(tmp_path / "ca").current
    assert authority is not None
    serving = make_serving(authority, ["a"], timedelta(days=100_000), now())
    assert serving.not_after == authority.not_after
    with pytest.raises(ConfigError):
        make_serving(authority, ["a"], timedelta(hours=1), authority.not_after + timedelta(seconds=1))
