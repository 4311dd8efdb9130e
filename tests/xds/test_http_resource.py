"""Resources of our own types: each has a message."""

from __future__ import annotations

import pytest

from ztunnel.xds.http_resource import CODECS
from ztunnel.xds.resource import KINDS


@pytest.mark.parametrize(("type_url", "kind"), KINDS.items())
def test_each_type_is_the_message_of_its_name(type_url: str, kind: type) -> None:
    assert type_url == f"type.googleapis.com/{CODECS[kind].message.DESCRIPTOR.full_name}"


def test_none_is_unknown_to_those_who_send() -> None:
    assert set(CODECS) == set(KINDS.values())
