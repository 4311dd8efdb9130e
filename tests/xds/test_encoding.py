"""A response in pieces is the same response."""

from __future__ import annotations

import pytest

from ztunnel.xds.encoding import encode
from ztunnel.xds.pb import discovery_pb2


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1700])
def test_joined_pieces_are_the_response(count: int) -> None:
    response = discovery_pb2.DeltaDiscoveryResponse(
        type_url="t", nonce="7", removed_resources=["a", "b"], system_version_info="v"
    )
    for number in range(count):
        response.resources.add(name=f"n{number}", version="1").resource.value = b"x" * number
    pieces = list(encode(response))
    assert discovery_pb2.DeltaDiscoveryResponse.FromString(b"".join(pieces)) == response
    assert len(pieces) == 1 + -(-count // 500)
