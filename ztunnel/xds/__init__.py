"""Delta xDS, sans I/O, for both sides: Istio's resources as messages, the subscriber, the publisher.

`ztunnel/xds/pb` is generated from `ztunnel/xds/proto`, at the root of the repository:

    python -m grpc_tools.protoc -Iztunnel/xds/pb=ztunnel/xds/proto \\
        --python_out=. --mypy_out=. ztunnel/xds/proto/*.proto
"""

from ztunnel.deferred import defer

defer("google.protobuf.internal.python_message")
