"""A whole mesh: faults are findings, and a namespace is a filter."""

from __future__ import annotations

from tests.analyze.parts import AMBIENT, OUTSIDE, WEB, findings, mesh
from ztunnel.analyze.finding import Level, parse_suppression
from ztunnel.analyze.findings import analyze

BROKEN = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: x, namespace: bank}\n"
BROKEN += "spec: {mtls: {mode: STRIKT}}\n"
PORT = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec: {ports: [{port: 80}]}\n"


def test_a_mesh_that_is_right_has_none() -> None:
    assert findings(AMBIENT, WEB, OUTSIDE) == []


def test_what_the_readers_refuse_is_an_error_with_file_line_and_field() -> None:
    (found,) = findings(AMBIENT, WEB, BROKEN)
    assert (found.code, found.level, found.line) == ("IST0106", Level.ERROR, 4)
    assert found.message.startswith("spec.mtls.mode: ")
    assert "must be one of" in found.message


def test_a_namespace_filters() -> None:
    both = mesh(AMBIENT, WEB, PORT, PORT.replace("shop", "bank"))
    assert [one.what for one in analyze(both, "bank")] == ["Service bank/s"]
    assert len(analyze(both)) == 2
    system = mesh(AMBIENT, WEB, PORT.replace("shop", "kube-system"))
    assert analyze(system) == []
    assert len(analyze(system, "kube-system")) == 1


def test_suppressed_ones_are_left_out() -> None:
    assert analyze(mesh(AMBIENT, WEB, PORT), suppressions=[parse_suppression("IST0118=*")]) == []


def test_a_pattern_that_is_none_is_known_by_its_own_code() -> None:
    """Lookahead is not of RE2."""
    rule = "[{match: [{uri: {regex: '(?=a)'}}], route: [{destination: {host: s}}]}]"
    virtual = (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: shop}\n"
        f"spec: {{hosts: [s], http: {rule}}}\n"
    )
    (found,) = [each for each in findings(AMBIENT, WEB, PORT, virtual) if each.level is Level.ERROR]
    assert found.code == "IST0122"
    assert found.message.startswith("spec.http[0].match[0].uri")
