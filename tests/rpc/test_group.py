"""One error out of a group."""

from __future__ import annotations

import pytest
import trio

from ztunnel.rpc.group import ungrouped
from ztunnel.rpc.status import Code, RpcError


async def fail() -> None:
    raise RpcError(Code.ABORTED, "x")


async def test_one_error_stands_for_all() -> None:
    async def fail_together() -> None:
        with ungrouped():
            async with trio.open_nursery() as outer, trio.open_nursery() as inner:
                outer.start_soon(fail)
                inner.start_soon(fail)

    with pytest.raises(RpcError):
        await fail_together()


async def test_a_cancellation_stays_one() -> None:
    with trio.CancelScope() as scope, ungrouped():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
    assert scope.cancelled_caught


def test_what_is_no_group_passes() -> None:
    with pytest.raises(KeyError), ungrouped():
        raise KeyError
