"""`ztunnel proxy ztunnel`: the node proxy by the words and settings of Istio's chart."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from ztunnel.cli.main import main


def call(*words: str, **environment: str | None) -> Result:
    return CliRunner().invoke(main, ["proxy", *words], env={"NODE_NAME": None, **environment})


@pytest.mark.parametrize("words", [["ztunnel"], []])
def test_it_is_the_node_proxy(words: list[str]) -> None:
    done = call(*words)
    assert done.exit_code == 2
    assert "Give --node NAME, or set NODE_NAME" in done.output


def test_its_settings_are_the_environments() -> None:
    done = call("ztunnel", NODE_NAME="n1", XDS_ADDRESS="http://istiod.istio-system.svc:15012")
    assert done.exit_code == 1
    assert "'http://istiod.istio-system.svc:15012' is plaintext" in done.output


def test_another_kind_of_proxy_is_none_of_ours() -> None:
    done = call("sidecar")
    assert done.exit_code == 2
    assert "'sidecar' is not 'ztunnel'" in done.output
