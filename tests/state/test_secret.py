"""The forms of Secrets that Istio reads, and what is wrong with others; never what is in them."""

from base64 import b64encode

import pytest

from ztunnel.control.source.document import KINDS
from ztunnel.control.source.reading import read_value
from ztunnel.state.secret import Secret


def read(data=None, plain=None):
    value = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "shop"}}
    if data is not None:
        value["data"] = {name: b64encode(one.encode()).decode() for name, one in data.items()}
    if plain is not None:
        value["stringData"] = plain
    return read_value(value, KINDS["", "Secret"], strict=True)


TLS = {"tls.crt": "C", "tls.key": "K", "ca.crt": "R", "ca.crl": "L"}
GENERIC = {"cert": "c", "key": "k", "cacert": "r", "crl": "l"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (TLS, ("C", "K", "R", "L")),
        (GENERIC, ("c", "k", "r", "l")),
        ({**TLS, **GENERIC}, ("c", "k", "r", "l")),
        ({"tls.crt": "C", "key": "k", "ca.crt": "R"}, ("", "", "R", "")),  # of two forms
        ({"cert": "c", **TLS}, ("C", "K", "R", "L")),
        ({"ca.crt": "R"}, ("", "", "R", "")),
        ({"cacert": "", "ca.crt": "R"}, ("", "", "R", "")),
        ({"password": "x"}, ("", "", "", "")),
        ({}, ("", "", "", "")),
    ],
)
def test_what_is_in_it(data, expected):
    found = read(data).object
    assert isinstance(found, Secret)
    assert (found.certificate, found.private_key, found.roots, found.revoked) == expected


def test_text_counts_before_data_as_at_the_api_server():
    assert read({"ca.crt": "old"}, {"ca.crt": "new"}).object.roots == "new"


def test_what_is_no_base64_is_a_fault_that_shows_nothing_of_it():
    value = {
        "metadata": {"name": "s", "namespace": "shop"},
        "data": {"tls.crt": "QQ==", "tls.key": "geheim!"},
    }
    found = read_value(value, KINDS["", "Secret"], strict=True)
    (fault,) = found.faults
    assert (fault.field, fault.message) == ("data[tls.key]", "is no text in base64: PEM is needed")
    assert "geheim" not in str(fault)


def test_others_of_a_docker_registry_say_nothing_and_are_no_fault():
    value = {"metadata": {"name": "s"}, "data": {".dockerconfigjson": "/w=="}, "type": "x"}
    assert read_value(value, KINDS["", "Secret"], strict=True).faults == ()


def test_the_key_is_not_shown():
    assert "KKK" not in repr(read({**TLS, "tls.key": "KKK"}))
