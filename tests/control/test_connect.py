"""How a node proxy reaches a control plane: addresses, roots, names, tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.control.network import TOKEN, Plane, control_plane
from ztunnel.control.connect import Upstream
from ztunnel.errors import ConfigError
from ztunnel.rpc.status import RpcError

pytestmark = pytest.mark.timeout(30)


def upstream(**changes: object) -> Upstream:
    return Upstream(**{"name": "XDS", "address": "https://a:1", "roots": "SYSTEM", **changes})


def test_nothing_is_sent_in_plaintext() -> None:
    with pytest.raises(ConfigError, match="XDS_ADDRESS: 'http://a:1' is plaintext"):
        upstream(address="http://a:1").check()
    upstream().check()


async def test_the_token_file_is_read_for_each_call(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    one = upstream(token=str(file), metadata=(("clusterid", "K"), ("x", "y")))
    assert await one.credentials() == {"authorization": "Bearer first", "clusterid": "K", "x": "y"}
    file.write_text("second")
    assert (await one.credentials())["authorization"] == "Bearer second"
    assert "second" not in repr(one)


@pytest.mark.parametrize("content", ["", " \n", None, b"\xff"])
async def test_a_token_file_that_has_none_is_named(tmp_path: Path, content: str | bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    missing = ": No such file or directory$" if content is None else ""
    with pytest.raises(ConfigError, match=f"AUTH_TOKEN: {file}{missing}"):
        await upstream(token=str(file)).credentials()


async def test_a_token_may_be_given_itself_and_none_where_there_is_no_kubernetes() -> None:
    assert await upstream(token="itself").credentials() == {"authorization": "Bearer itself"}
    assert await upstream().credentials() == {}


async def reaches(plane: Plane, **changes: object) -> bool:
    async with plane.upstream(**changes).open() as channel:
        return not channel.leaving


async def test_roots_come_of_a_file_which_is_read_for_each_connection(tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    async with control_plane(tmp_path) as plane:
        with pytest.raises(ConfigError, match=f"XDS_ROOT_CA: no root certificates in {roots}: No such file"):
            await reaches(plane, roots=str(roots))
        roots.write_text("nothing")
        with pytest.raises(ConfigError, match="XDS_ROOT_CA"):
            await reaches(plane, roots=str(roots))
        assert plane.authority.current is not None
        roots.write_text(plane.authority.current.roots_pem)
        assert await reaches(plane, roots=str(roots))
        with pytest.raises(RpcError, match=r"certificate verify failed.* is in SYSTEM \(XDS_ROOT_CA\)"):
            await reaches(plane, roots="SYSTEM")


async def test_the_certificate_may_be_for_another_name(tmp_path: Path) -> None:
    async with control_plane(tmp_path, names=["istiod.test"]) as plane:
        with pytest.raises(RpcError, match="mismatch"):
            await reaches(plane)
        assert await reaches(plane, alternative="istiod.test")
        with pytest.raises(RpcError, match="mismatch"):
            await reaches(plane, alternative="nobody.test")


async def test_errors_of_a_block_are_its_own(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        with pytest.raises(KeyError):
            async with plane.upstream(TOKEN).open():
                raise KeyError


async def test_an_address_of_ipv6_is_one(tmp_path: Path) -> None:
    async with control_plane(tmp_path, names=["::1"], host="::1") as plane:
        assert await reaches(plane, host="[::1]")
