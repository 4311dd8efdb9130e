"""A response as bytes, in pieces that each take a moment: 100,000 resources take a tenth of a second."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ztunnel.xds.pb import discovery_pb2

_RESOURCES: Final = 500


def encode(response: discovery_pb2.DeltaDiscoveryResponse) -> Iterator[bytes]:
    """The pieces, which joined are the response: fields of messages may follow in any order, and a repeated
    one in several places (Protocol Buffers' encoding)."""
    yield discovery_pb2.DeltaDiscoveryResponse(
        system_version_info=response.system_version_info,
        type_url=response.type_url,
        nonce=response.nonce,
        removed_resources=response.removed_resources,
    ).SerializeToString()
    resources = response.resources
    for begin in range(0, len(resources), _RESOURCES):
        some = resources[begin : begin + _RESOURCES]
        yield discovery_pb2.DeltaDiscoveryResponse(resources=some).SerializeToString()
