"""Which texts make an authority, by the names that Istio and cert-manager give them."""

from __future__ import annotations

import pytest

from tests.identity.builders import NOW
from tests.identity.sets import one_step
from ztunnel.errors import ConfigError
from ztunnel.identity.authority import read_authority
from ztunnel.identity.plugged_in import CA_CERT, CA_KEY, ROOT_CERT, assemble, is_plugged_in


def test_istio_s_names_come_first() -> None:
    both = one_step().files() | {"tls.crt": b"x", "tls.key": b"x", "ca.crt": b"x"}
    texts = assemble(both, lambda name: f"Secret istio-system/cacerts: {name}")
    assert texts.key.name == "Secret istio-system/cacerts: ca-key.pem"
    assert texts.certificate is not None
    assert texts.certificate.content == both[CA_CERT]


def test_a_tls_secret_as_cert_manager_writes_it_is_an_authority() -> None:
    found = one_step()
    files = found.files()
    secret = {
        "tls.crt": files[CA_CERT] + files[ROOT_CERT],
        "tls.key": files[CA_KEY],
        "ca.crt": files[ROOT_CERT],
    }
    authority = read_authority(assemble(secret, str), "cluster.local", NOW)
    assert authority.certificate == found.signer.certificate
    assert authority.presented == (found.signer.certificate,)
    assert authority.roots == (found.root.certificate,)


@pytest.mark.parametrize("missing", [CA_CERT, CA_KEY, ROOT_CERT])
def test_what_is_missing_is_named(missing: str) -> None:
    files = one_step().files()
    del files[missing]
    with pytest.raises(ConfigError, match=r"missing or empty: .*ztunnel ca cluster") as refusal:
        assemble(files, str)
    assert [fault.file for fault in refusal.value.faults] == [missing]


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as refusal:
        assemble({"tls.crt": b"x"}, str)
    assert [fault.file for fault in refusal.value.faults] == ["tls.key", "ca.crt"]


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (["ca-key.pem"], True),
        (["tls.crt", "x"], True),
        (["root-cert.pem", "root-key.pem"], False),
        (["ca.crt"], False),
        ([], False),
    ],
)
def test_a_folder_is_the_operator_s_by_its_names(names: list[str], meant: bool) -> None:
    assert is_plugged_in(names) is meant
