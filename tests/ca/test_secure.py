"""The certificate that is served with, over its life."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
import trio

from tests.control.standing import now, standing
from ztunnel.ca.secure import ServingTls
from ztunnel.identity.standing import StandingAuthority


class Clock:
    def __init__(self) -> None:
        self.at = now()

    def __call__(self) -> datetime:
        return self.at


def test_one_context_serves_until_half_of_its_life(tmp_path: Path) -> None:
    clock = Clock()
    tls = ServingTls(standing(tmp_path / "ca"), ["a.svc"], clock, timedelta(hours=10))
    first = tls.context()
    clock.at += timedelta(hours=4)
    assert tls.context() is first
    clock.at += timedelta(hours=2)
    assert tls.context() is not first
    assert tls.not_after is not None
    assert tls.not_after > clock.at + timedelta(hours=9)


def test_an_expired_one_is_renewed_when_a_connection_comes(tmp_path: Path) -> None:
    clock = Clock()
    tls = ServingTls(standing(tmp_path / "ca"), ["a.svc"], clock, timedelta(seconds=60))
    first = tls.context()
    clock.at += timedelta(days=2)
    assert tls.context() is not first
    assert tls.renewed_total == 2


def test_another_authority_serves_at_once(tmp_path: Path) -> None:
    authority = standing(tmp_path / "ca")
    tls = ServingTls(authority, ["a.svc"], now)
    first = tls.context()
    other = standing(tmp_path / "other").current
    assert other is not None
    authority.take(other)
    assert tls.context() is not first


def test_without_an_authority_nothing_is_served() -> None:
    with pytest.raises(OSError, match="has not been read yet"):
        ServingTls(StandingAuthority(), ["a.svc"], now).context()


async def test_it_is_renewed_before_anybody_asks(tmp_path: Path, autojump_clock: object) -> None:
    clock = Clock()
    tls = ServingTls(standing(tmp_path / "ca"), ["a.svc"], clock, timedelta(hours=1))
    with trio.move_on_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tls.run)
            await trio.sleep(1)
            assert tls.renewed_total == 1
            clock.at += timedelta(minutes=45)
            await trio.sleep(60)
            assert tls.renewed_total == 2
