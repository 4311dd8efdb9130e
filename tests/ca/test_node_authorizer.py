"""A node proxy may have certificates for the pods of its own node, everybody else for itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.control.calling import PROXY, Pods, pod
from ztunnel.ca.caller import Caller, Proof, Reason, Refused
from ztunnel.ca.node_authorizer import NodeAuthorizer
from ztunnel.model.identity import SpiffeId

WEB = SpiffeId("cluster.local", "shop", "web")
ZTUNNEL = SpiffeId("cluster.local", "ztunnel-system", "ztunnel")
CALLER = Caller(ZTUNNEL, Proof.TOKEN, "ztunnel-1", "uid-ztunnel-1", "n1")
WORLD = (
    PROXY,
    pod("ztunnel-2", "ztunnel", "n2", "ztunnel-system"),
    pod("web-0", "web", "n1"),
    pod("db-0", "db", "n2"),
    pod("job-0", "job", "n1", phase="Succeeded"),
    pod("web-0", "other", "n1", "elsewhere"),
)


def authorize(caller=CALLER, identity=WEB, pods=WORLD, trusted=("ztunnel-system/ztunnel",)):
    NodeAuthorizer(Pods(*pods), trusted, "cluster.local").authorize(caller, identity)


def test_a_node_proxy_may_be_who_runs_on_its_node():
    authorize()


@pytest.mark.parametrize("proof", Proof)
def test_everybody_may_be_themselves(proof):
    authorize(Caller(WEB, proof), WEB, pods=(), trusted=())


def test_a_token_that_names_no_node_is_of_the_node_of_its_pod():
    authorize(replace(CALLER, node=""))


def test_a_file_of_the_operator_s_may_say_which_node_a_proxy_is_on():
    authorize(Caller(ZTUNNEL, Proof.STATIC_TOKEN, node="n1"))
    with pytest.raises(Refused, match="on node n2 may not"):
        authorize(Caller(ZTUNNEL, Proof.STATIC_TOKEN, node="n2"))


REFUSED = {
    "a pod of another node": (
        {"identity": SpiffeId("cluster.local", "shop", "db")},
        Reason.OTHER_NODE,
        r"ztunnel-1\) on node n1 may not .*/sa/db: no pod of shop/db runs on that node",
    ),
    "the same account in another namespace": (
        {"identity": SpiffeId("cluster.local", "elsewhere", "web")},
        Reason.OTHER_NODE,
        "no pod of elsewhere/web",
    ),
    "a pod that has ended": (
        {"identity": SpiffeId("cluster.local", "shop", "job")},
        Reason.OTHER_NODE,
        "no pod of shop/job",
    ),
    "another trust domain": (
        {"identity": SpiffeId("example.org", "shop", "web")},
        Reason.OTHER_TRUST_DOMAIN,
        "is of another trust domain than this control plane's, cluster.local",
    ),
    "another trust domain for oneself": (
        {
            "identity": SpiffeId("example.org", "a", "b"),
            "caller": Caller(SpiffeId("example.org", "a", "b"), Proof.CERTIFICATE),
        },
        Reason.OTHER_TRUST_DOMAIN,
        "another trust domain",
    ),
    "a workload": (
        {"caller": Caller(SpiffeId("cluster.local", "shop", "db"), Proof.TOKEN, "db-0", "uid-db-0", "n2")},
        Reason.WRONG_ACCOUNT,
        "shop/db .pod shop/db-0. may have .* itself only: .*CA_TRUSTED_NODE_ACCOUNTS: ztunnel-system/ztunnel",
    ),
    "an account of that name in another namespace": (
        {"caller": Caller(SpiffeId("cluster.local", "shop", "ztunnel"), Proof.TOKEN, "x", "y", "n1")},
        Reason.WRONG_ACCOUNT,
        "for itself only",
    ),
    "anybody where nobody is trusted": (
        {"trusted": ()},
        Reason.WRONG_ACCOUNT,
        "CA_TRUSTED_NODE_ACCOUNTS: none",
    ),
    "a token that is bound to no pod": (
        {"caller": replace(CALLER, pod="", pod_uid="")},
        Reason.UNKNOWN_POD,
        "names no pod: it has to be bound to one",
    ),
    "a certificate": (
        {"caller": Caller(ZTUNNEL, Proof.CERTIFICATE)},
        Reason.UNKNOWN_POD,
        "has proved its account, and not its pod",
    ),
    "a pod that is not there": (
        {"caller": replace(CALLER, pod="ztunnel-9")},
        Reason.UNKNOWN_POD,
        "no such pod",
    ),
    "an earlier pod of that name": (
        {"caller": replace(CALLER, pod_uid="before")},
        Reason.UNKNOWN_POD,
        "another pod of that name",
    ),
    "a pod that the token is not of": (
        {
            "caller": replace(CALLER, pod="other", pod_uid="uid-other"),
            "pods": (*WORLD, pod("other", "x", "n1", "ztunnel-system")),
        },
        Reason.WRONG_ACCOUNT,
        "runs as x",
    ),
    "a token of another node": (
        {"caller": replace(CALLER, node="n2")},
        Reason.OTHER_NODE,
        "runs on n1, the token is of n2",
    ),
    "a pod that runs nowhere yet": (
        {"pods": (replace(PROXY, node=""), *WORLD[1:]), "caller": replace(CALLER, node="")},
        Reason.OTHER_NODE,
        "runs on no node",
    ),
}


@pytest.mark.parametrize(("changes", "reason", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_is(changes, reason, message):
    with pytest.raises(Refused, match=message) as refusal:
        authorize(**changes)
    assert refusal.value.reason is reason


def test_a_pod_counts_from_when_it_is_known_to_when_it_is_gone():
    pods = Pods(PROXY)
    authorizer = NodeAuthorizer(pods, ["ztunnel-system/ztunnel"], "cluster.local")
    with pytest.raises(Refused):
        authorizer.authorize(CALLER, WEB)
    pods.all["shop", "web-0"] = pod("web-0", "web", "n1")
    authorizer.authorize(CALLER, WEB)
    del pods.all["shop", "web-0"]
    with pytest.raises(Refused):
        authorizer.authorize(CALLER, WEB)


def reporter(caller):
    return NodeAuthorizer(Pods(*WORLD), ("ztunnel-system/ztunnel",), "cluster.local").reporter(caller)


def test_a_node_proxy_tells_of_the_pods_of_its_own_node():
    assert reporter(CALLER) == "n1"


def test_nobody_else_tells_of_pods():
    with pytest.raises(Refused, match="may not tell of pods: its account is none") as caught:
        reporter(Caller(WEB, Proof.TOKEN, "web-0", "uid-web-0", "n1"))
    assert caught.value.reason is Reason.WRONG_ACCOUNT
    with pytest.raises(Refused, match="not its pod"):
        reporter(Caller(ZTUNNEL, Proof.CERTIFICATE))
    with pytest.raises(Refused, match="the token is of n2"):
        reporter(replace(CALLER, node="n2"))
