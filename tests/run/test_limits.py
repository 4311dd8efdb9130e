from dataclasses import replace

from tests.run.parts import SETTINGS
from ztunnel.run.limits import limits_of


def test_sessions_have_the_limits_that_are_set() -> None:
    settings = replace(
        SETTINGS,
        pool_max_streams=7,
        stream_window_bytes=70_000,
        session_window_bytes=80_000,
        frame_bytes=20_000,
        ping_interval_seconds=3.0,
        ping_timeout_seconds=4.0,
        buffer_limit_bytes=90_000,
    )
    found = limits_of(settings)
    assert (found.open_streams, found.stream_window_bytes, found.session_window_bytes) == (7, 70_000, 80_000)
    assert (found.frame_bytes, found.buffered_bytes) == (20_000, 90_000)
    assert (found.ping_seconds, found.pong_seconds) == (3.0, 4.0)
