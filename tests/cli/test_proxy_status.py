"""`ztunnel proxy-status`: every control plane is asked; who is not synced, or nowhere, makes it fail."""

from __future__ import annotations

import json

import yaml
from click.testing import CliRunner, Result

from tests.analyze.kubectl import Fake
from tests.analyze.test_nodes import pod
from tests.analyze.test_sync import entry, sent
from tests.cli.test_explain import page
from ztunnel.cli.main import main

GOOD = entry("zt-a.ztunnel-system", workloads=sent("3", "3"), policies=sent("1", "1"))


def call(*words: str) -> Result:
    return CliRunner().invoke(main, ["proxy-status", *words])


def script(address: str, controls: int = 1, dead: bool = False) -> str:
    reach = f"echo 'Forwarding from 127.0.0.1:{address.rpartition(':')[2]} -> 1'; exec sleep 60"
    running = {**pod(), "status": {**pod()["status"], "phase": "Running"}}
    return f"""case "$*" in
    *port-forward*15014*) {"echo 'pod has gone' >&2; exit 1" if dead else reach};;
    *component=node*) echo '{json.dumps({"items": [running]})}';;
    *) echo '{json.dumps({"items": [pod()] * controls})}';;
    esac"""


def test_all_are_synced(kubectl: Fake) -> None:
    with page(lambda path: (200, json.dumps([GOOD]) if path == "/debug/syncz" else "")) as address:
        kubectl(script(address))
        found = call()
        assert json.loads(call("-o", "json").output) == yaml.safe_load(call("-o", "yaml").output)
        alone = call("--address", address)
    assert (found.exit_code, alone.exit_code) == (0, 0)
    assert found.output.splitlines()[1].split()[-3:] == ["SYNCED", "SYNCED", "1"]
    assert f" {address} " in alone.output


def test_who_is_not_synced_makes_it_fail(kubectl: Fake) -> None:
    stale = {**GOOD, **entry("zt-a.ztunnel-system", workloads=sent("3", "2", error="a: cannot"))}
    with page(lambda path: (200, json.dumps([stale]))) as address:
        kubectl(script(address))
        found = call()
    assert found.exit_code == 1
    assert "zt-a.ztunnel-system refused WORKLOADS: a: cannot" in found.output


def test_who_is_connected_to_none_is_shown(kubectl: Fake) -> None:
    with page(lambda path: (200, "[]")) as address:
        kubectl(script(address))
        found = call()
    assert found.exit_code == 1
    assert "NOT CONNECTED" in found.output


def test_what_cannot_be_asked_is_said(kubectl: Fake) -> None:
    kubectl(script("x:1", dead=True))
    assert call().exit_code == 1
    assert "pod has gone" in call().output
    with page(lambda path: (403, "no")) as address:
        found = call("--address", address)
    assert (found.exit_code, found.output.splitlines()[-1]) == (1, f"{address}: no")


def test_where_no_control_plane_is_that_is_said(kubectl: Fake) -> None:
    kubectl(script("x:1", controls=0))
    found = call()
    assert found.exit_code == 1
    assert "no control plane of ours in namespace ztunnel-system" in found.output
