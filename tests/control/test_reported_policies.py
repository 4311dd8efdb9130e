"""What others reported of policies and tokens at a waypoint (issues of istio/istio), as what a waypoint does
here with the objects that they wrote."""

from __future__ import annotations

import pytest

from tests.control.test_documented_policies import (
    HTTPBIN,
    WHO,
    Served,
    authentication,
    policy,
    signed,
)
from ztunnel.control.settings import MeshSettings

GITHUB = "https://token.actions.githubusercontent.com"
JOB = "repo:my-org/some-repo:ref:refs/heads/main"


def principals(*values: str) -> str:
    texts = ", ".join(f"'{value}'" for value in values)
    return policy("p", f"rules:\n- from:\n  - source:\n      requestPrincipals: [{texts}]")


@pytest.mark.parametrize(
    ("issuer", "subject", "value", "passes"),
    [
        (GITHUB, JOB, f"{GITHUB}/repo:my-org*", True),
        (GITHUB, JOB, f"{GITHUB}/repo:*", True),
        (GITHUB, JOB, f"{GITHUB}/*", True),
        (GITHUB, JOB, "*main", True),
        (GITHUB, JOB, f"{GITHUB}/repo:other*", False),
        # What stands behind the last slash is the subject, as there: no other can claim to be an issuer.
        (GITHUB, JOB, f"{GITHUB}/{JOB}", False),
        (GITHUB, JOB, f"{GITHUB}/repo:my-org/*", False),
        (f"{GITHUB}/", "job", f"{GITHUB}/job", False),  # its principal has two slashes
        (f"{GITHUB}/", "job", f"{GITHUB}//job", True),
        ("https://accounts.google.com", "1234567890", "https://accounts.google.com/1234567890", True),
        ("https://accounts.google.com", "1234567890", "accounts.google.com/1234567890", False),
        ("https://accounts.google.com", "1234567890", "*accounts.google.com/1234567890", True),
    ],
)  # fmt: skip
def test_issuers_and_subjects_with_slashes(issuer: str, subject: str, value: str, passes: bool) -> None:
    """istio/istio#49979, istio/istio#52217."""
    it = Served(authentication(issuer), principals(value))
    assert it.passes(bearer=signed(issuer, subject)) is passes


def test_a_subject_with_slashes_is_a_claim() -> None:
    """istio/istio#52217: what says that without a doubt."""
    condition = f"rules:\n- when:\n  - {{key: 'request.auth.claims[sub]', values: ['{JOB}']}}"
    it = Served(authentication(GITHUB), policy("p", condition))
    assert it.passes(bearer=signed(GITHUB, JOB))
    assert not it.passes(bearer=signed(GITHUB, f"{JOB}/other"))


@pytest.mark.parametrize("field", ["paths", "hosts", "methods"])
def test_a_star_in_the_middle_stands_for_itself_and_that_is_said(field: str) -> None:
    """istio/istio#46910, istio/istio#39810: nothing but the end and the begin of a value is a pattern."""
    value = {"paths": "/service/*health", "hosts": "*.example.int:*", "methods": "G*T"}[field]
    it = Served(policy("p", f"rules:\n- to:\n  - operation:\n      {field}: ['{value}']"))
    assert not it.passes("/service/123health", host="dev.example.int:39954")
    assert any(value in text and "compared as it is" in text for text in it.warnings)


def test_a_principal_with_a_star_at_each_end() -> None:
    """istio/istio#50504: it is the suffix `.abc/ns/foo*`, which nobody has."""
    it = Served(policy("p", "rules:\n- from:\n  - source:\n      principals: ['*.local/ns/foo*']"))
    assert not it.passes()
    assert any("compared as it is" in text for text in it.warnings)


@pytest.mark.parametrize(
    ("value", "passes"),
    [
        ("cluster.local/ns/foo/sa/sleep", True),
        ("cluster.local/ns/foo/*", True),
        ("cluster.local/*", True),
        ("*/ns/foo/sa/sleep", True),
        ("ecp/ns/foo/*", True),
        ("cluster.local/ns/bar/*", False),
    ],
)
def test_wildcards_behind_cluster_local_in_a_mesh_of_another_trust_domain(value: str, passes: bool) -> None:
    """istio/istio#47322."""
    text = policy("p", f"rules:\n- from:\n  - source:\n      principals: ['{value}']")
    assert Served(text, settings=MeshSettings(trust_domain="ecp")).passes() is passes


@pytest.mark.parametrize(
    "target",
    [
        "targetRef: {kind: Service, group: '', name: httpbin}",
        "targetRef: {kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}",
        "targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]",
        HTTPBIN,
    ],
)
def test_each_way_to_name_a_target_counts(target: str) -> None:
    """istio/istio#54027, istio/istio#53790."""
    made = authentication(WHO).replace(HTTPBIN, target)
    it = Served(
        made, policy("p", "rules:\n- from:\n  - source:\n      requestPrincipals: ['*']", targets=target)
    )
    assert "Jwt is not in the form of" in it.why("/headers", bearer=b"opaque")
    assert it.passes("/headers", bearer=signed())
    assert not it.passes("/headers")


def test_a_path_that_needs_no_token_still_refuses_one_that_is_none() -> None:
    """istio/istio#27943, istio/istio#53790: what policies exempt is the need of a token, as documented."""
    rule = (
        "action: DENY\nrules:\n- from:\n  - source:\n      notRequestPrincipals: ['*']\n"
        "  to:\n  - operation:\n      notPaths: ['/healthz']"
    )
    it = Served(authentication(WHO), policy("require-jwt", rule))
    assert it.passes("/healthz")
    assert not it.passes("/headers")
    assert it.passes("/headers", bearer=signed())
    assert "Jwt is not in the form of" in it.why("/healthz", bearer=b"dsf5sd7f6d7fsdjkfh")


def test_of_a_waypoint_that_others_reach_the_callers_namespace_decides() -> None:
    """istio/istio#57661: a waypoint whose policy lets in callers of its own namespace only."""
    gateway = "targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]"
    it = Served(policy("own", "rules:\n- from:\n  - source:\n      namespaces: [foo]", targets=gateway))
    assert it.passes()
    assert not it.passes(of="bar/sleep")
