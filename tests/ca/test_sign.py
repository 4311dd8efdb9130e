"""Who signs: the authority of this process, or a signer of the Kubernetes API, which others run."""

from __future__ import annotations

from base64 import b64decode
from datetime import UTC, datetime
from itertools import count

import httpx2
import pytest
import trio

from tests.ca.signer import NAME, SignerOfTheCluster, add, approve, sign_with
from tests.kube.fake import answer, status
from ztunnel.ca.sign import KubernetesSigner, roots_of
from ztunnel.errors import ConfigError, NoCertificate, PeerError
from ztunnel.identity import csr
from ztunnel.identity.issued import accept
from ztunnel.identity.sign import open_authority
from ztunnel.model.identity import SpiffeId

WEB = SpiffeId("cluster.local", "shop", "web")
DB = SpiffeId("cluster.local", "shop", "db")


def now():
    return datetime.now(UTC)


@pytest.fixture
def authority(tmp_path):
    return open_authority(tmp_path / "ca", now(), "cluster.local")


@pytest.fixture
async def cluster(nursery, authority):
    made = SignerOfTheCluster(sign_with(authority))
    nursery.start_soon(made.run)
    return made


@pytest.fixture
async def signer(cluster, authority):
    numbers = count()
    async with cluster.server.api() as api:
        yield KubernetesSigner(api, NAME, lambda: authority.roots_pem, now, lambda: f"z-{next(numbers)}")


async def test_what_a_signer_of_the_cluster_signs_is_taken(signer, cluster, authority):
    made = csr.create(WEB)
    taken = accept(await signer.sign(made.csr_pem, WEB, 3600.0), WEB, made, now())
    assert taken.roots_pem == authority.roots_pem
    (seen,) = cluster.seen
    assert seen["spec"] == {
        "request": seen["spec"]["request"], "signerName": NAME, "expirationSeconds": 3600,
        "usages": ["digital signature", "key encipherment", "server auth", "client auth"],
    }  # fmt: skip
    assert b64decode(seen["spec"]["request"]).decode() == made.csr_pem
    assert seen["metadata"]["annotations"] == {"ztunnel.io/identity": str(WEB)}
    assert cluster.left == 0


async def test_kubernetes_takes_no_less_than_ten_minutes(signer, cluster):
    await signer.sign(csr.create(WEB).csr_pem, WEB, 60.0)
    assert cluster.seen[0]["spec"]["expirationSeconds"] == 600


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (
            lambda one: add(one, "Denied", "Policy", "not this account"),
            "the request was denied (Policy: not this account)",
        ),
        (lambda one: add(one, "Denied"), "the request was denied"),
        (
            lambda one: (approve(one), add(one, "Failed", "Broken", "no key")),
            "the request has failed (Broken: no key)",
        ),
        (lambda one: None, "nobody has approved the request within 8 s"),
        (approve, "has not signed within 8 s what was approved"),
        (
            lambda one: one.update(status={"certificate": "%%%", "conditions": [7, None]}),
            "no base64 of PEM",
        ),
        (lambda one: one.update(status={"certificate": "eHg="}), "of no use"),
        (lambda one: one.update(status=7), "nobody has approved"),
    ],
)
async def test_what_goes_wrong_is_said_and_leaves_nothing_behind(signer, cluster, act, said, autojump_clock):
    cluster.act = act
    with pytest.raises(NoCertificate) as refused:
        await signer.sign(csr.create(WEB).csr_pem, WEB, 3600.0)
    assert said in str(refused.value)
    assert NAME in str(refused.value) or "base64" in said
    assert cluster.left == 0


async def test_whoever_is_cancelled_leaves_nothing_behind(signer, cluster, autojump_clock):
    cluster.act = lambda one: None
    with trio.move_on_after(1):
        await signer.sign(csr.create(WEB).csr_pem, WEB, 3600.0)
    assert (len(cluster.seen), cluster.left) == (1, 0)


async def test_a_certificate_for_another_key_or_account_or_of_another_root_is_refused(
    signer, cluster, authority, tmp_path
):
    other = csr.create(WEB)
    stranger = open_authority(tmp_path / "other", now(), "cluster.local")

    def for_another(request, identity, by):
        return lambda one: sign_with(by, lambda _: "".join(by.sign(request, identity, 3600.0, now())[:-1]))(
            one
        )

    acts = [
        (for_another(other.csr_pem, WEB, authority), "another key"),
        (sign_with(stranger), "of no use"),
    ]
    for act, said in acts:
        cluster.act = act
        with pytest.raises(NoCertificate, match=said):
            await signer.sign(csr.create(WEB).csr_pem, WEB, 3600.0)


async def test_a_request_for_somebody_else_is_not_even_made(signer, cluster):
    with pytest.raises(PeerError, match="is for"):
        await signer.sign(csr.create(DB).csr_pem, WEB, 3600.0)
    with pytest.raises(PeerError):
        await signer.sign("no request", WEB, 3600.0)
    assert cluster.seen == []


async def test_a_missing_permission_is_named(signer, cluster):
    forbidden = answer(403, status(403, "Forbidden", "no"))
    cluster.server.faults.append(lambda request: forbidden if request.method == "POST" else None)
    with pytest.raises(NoCertificate, match="needs RBAC: create certificatesigningrequests"):
        await signer.sign(csr.create(WEB).csr_pem, WEB, 3600.0)


async def test_an_api_server_that_fails_on_the_way_is_said(signer, cluster):
    broken = httpx2.Response(500, text="no")
    cluster.server.faults.append(lambda request: broken if request.method == "GET" else None)
    with pytest.raises(NoCertificate, match="cannot be asked"):
        await signer.sign(csr.create(WEB).csr_pem, WEB, 3600.0)


def test_roots_are_read_whenever_they_are_asked_for(tmp_path, authority):
    path = tmp_path / "root-cert.pem"
    read = roots_of(str(path))
    with pytest.raises(ConfigError, match="ZTUNNEL_SIGNER_ROOT: no root certificates of the signer"):
        read()
    path.write_text(authority.roots_pem)
    assert read() == authority.roots_pem
    path.write_text("nothing")
    with pytest.raises(ConfigError):
        read()
    assert roots_of(authority.roots_pem)() == authority.roots_pem
