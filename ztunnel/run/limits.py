"""Which limits of sessions the settings ask for."""

from __future__ import annotations

from ztunnel.config import Settings
from ztunnel.http2.limits import Limits


def limits_of(settings: Settings) -> Limits:
    """Those of a node proxy, and of a waypoint but for how many streams it accepts."""
    return Limits(
        open_streams=settings.pool_max_streams,
        stream_window_bytes=settings.stream_window_bytes,
        session_window_bytes=settings.session_window_bytes,
        frame_bytes=settings.frame_bytes,
        ping_seconds=settings.ping_interval_seconds,
        pong_seconds=settings.ping_timeout_seconds,
        buffered_bytes=settings.buffer_limit_bytes,
    )
