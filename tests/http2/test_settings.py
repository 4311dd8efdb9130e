"""The settings of a peer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.http2.frame import Code, Setting, push_settings
from ztunnel.http2.settings import pull_settings


def test_settings_are_read_unknown_ones_too() -> None:
    assert pull_settings(b"\0\x03\0\0\0\x64\0\x99\0\0\0\x01") == {3: 100, 0x99: 1}


def test_the_last_of_two_counts() -> None:
    assert pull_settings(b"\0\x03\0\0\0\x64\0\x03\0\0\0\x01") == {3: 1}


@pytest.mark.parametrize(
    ("setting", "value", "code"),
    [
        (Setting.ENABLE_PUSH, 2, Code.PROTOCOL_ERROR),
        (Setting.INITIAL_WINDOW_SIZE, 2**31, Code.FLOW_CONTROL_ERROR),
        (Setting.MAX_FRAME_SIZE, 16_383, Code.PROTOCOL_ERROR),
        (Setting.MAX_FRAME_SIZE, 2**24, Code.PROTOCOL_ERROR),
    ],
)
def test_values_that_are_forbidden_are_refused(setting: Setting, value: int, code: Code) -> None:
    with pytest.raises(PeerError) as error:
        pull_settings(push_settings({setting: value})[9:])
    assert error.value.reply == code


@given(st.binary(max_size=60))
def test_garbage_is_a_peer_error_or_settings(untrusted: bytes) -> None:
    try:
        settings = pull_settings(untrusted)
    except PeerError:
        return
    assert len(settings) <= len(untrusted) // 6
