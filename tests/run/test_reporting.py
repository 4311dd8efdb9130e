from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import trio

from tests.run.parts import SETTINGS
from ztunnel.errors import ConfigError
from ztunnel.run.reporting import STATE, Reporting, now


def said(reporting):
    return list(reporting.writer.buffer.waiting)


def test_the_wall_clock_is_aware():
    assert now().utcoffset().total_seconds() == 0


def test_a_node_waits_for_the_world_first():
    assert Reporting(SETTINGS).readiness.render(0.0) == (False, f"not ready, pending: {STATE}\n")


def test_levels_that_cannot_be_set_are_the_operators_to_mend():
    with pytest.raises(ConfigError, match="log_level"):
        Reporting(replace(SETTINGS, log_level="x" * 65 + "=info"))


async def test_a_bug_ends_at_the_boundary_and_is_logged_and_counted():
    reporting = Reporting(SETTINGS)
    with reporting.boundary():
        raise KeyError("x")
    assert reporting.readiness.internal_errors == 1
    [line] = said(reporting)
    assert "internal error" in line
    assert "KeyError: 'x'" in line
    assert "test_reporting.py" in line


async def test_a_part_that_raises_ends_alone():
    reporting = Reporting(SETTINGS)

    async def part() -> None:
        raise ExceptionGroup("", [ValueError("a"), ValueError("b")])

    await reporting.contain(part)
    assert [line for line in said(reporting) if "ValueError: b" in line]
    assert reporting.readiness.internal_errors == 1


async def test_a_cancellation_passes_the_boundary():
    reporting = Reporting(SETTINGS)
    with trio.CancelScope() as scope:
        scope.cancel()
        await reporting.contain(trio.sleep_forever)
    assert scope.cancelled_caught
    assert not said(reporting)


async def test_five_bugs_in_ten_seconds_make_the_node_not_ready(autojump_clock):
    reporting = Reporting(SETTINGS)
    reporting.readiness.done(STATE)
    for _ in range(4):
        reporting.bug(KeyError())
    assert reporting.readiness.render(trio.current_time())[0]
    reporting.bug(KeyError())
    assert reporting.readiness.render(trio.current_time()) == (False, "not ready, pending: internal errors\n")
    await trio.sleep(10.1)
    assert reporting.readiness.render(trio.current_time())[0]


async def test_a_bug_that_comes_again_and_again_fills_no_log(autojump_clock):
    reporting = Reporting(SETTINGS)
    for _ in range(1000):
        reporting.bug(KeyError())
    assert (len(said(reporting)), reporting.readiness.internal_errors) == (100, 1000)
    await trio.sleep(1.01)
    for _ in range(1000):
        reporting.bug(KeyError())
    assert (len(said(reporting)), reporting.readiness.internal_errors) == (110, 2000)


def test_what_modules_say_through_logging_is_in_the_log_and_in_its_form():
    reporting = Reporting(replace(SETTINGS, log_format="json"))
    ours = logging.getLogger("ztunnel.identity.rotate")
    with reporting.forward_logging():
        ours.warning("fetch %d failed", 3)
        ours.error("lost")
        ours.info("not this")
    first, second = said(reporting)
    assert '"scope":"identity"' in first.replace(" ", "")
    assert "fetch 3 failed" in first
    assert "error" in second
    assert not logging.getLogger("ztunnel").handlers
