"""Whether two pods of one node may talk without TLS, and the verdict about it when they do.

On one node the kernel knows which pod opens a connection, so the source's identity is proved without a
certificate. That is enough for authorization; whether it is enough instead of TLS is what the same-node mode
says.
"""

from __future__ import annotations

from collections.abc import Callable

from ztunnel.authz.rule import matches
from ztunnel.authz.verdict import Admitted, is_peer_authentication, judge
from ztunnel.errors import Denied
from ztunnel.model.address import Endpoint, IPAddress
from ztunnel.model.connection import Connection
from ztunnel.model.policy import Action
from ztunnel.model.workload import SameNode, Workload
from ztunnel.state.world import World


def requires_tls(world: World, destination: Workload, connection: Connection) -> bool:
    """Whether a STRICT PeerAuthentication covers this connection: it would be refused without an identity.

    A policy of such a name that the workload lists and that has not been received counts as if it did.
    """
    received, missing = world.policies_for(destination)
    plain = Connection(connection.source, connection.destination, None)
    return any(is_peer_authentication(key.rpartition("/")[2]) for key in missing) or any(
        policy.action is Action.DENY
        and not policy.dry_run
        and is_peer_authentication(policy.name)
        and matches(policy, plain)
        for policy in received
    )


def connection_between(source: Workload, target: Endpoint, port: int = 0) -> Connection:
    """The connection that `source` makes to `target` with its own address of that family.

    No policy looks at a source port: 0 stands for the one that the kernel has yet to choose.
    """
    return Connection(Endpoint(_own_address(source, target.ip), port), target, source.identity)


def _own_address(source: Workload, towards: IPAddress) -> IPAddress:
    for ip in source.addresses:
        if ip.version == towards.version:
            return ip
    return source.addresses[0] if source.addresses else towards


def allows_direct(
    world: World, source: Workload, destination: Workload, connection: Connection, mesh_wide: SameNode
) -> bool:
    """Whether the same-node modes let these two talk without TLS.

    MTLS at either end or for the mesh: never. DIRECT at the destination or for the mesh: always; the source
    cannot waive what protects the destination. Otherwise where no STRICT PeerAuthentication covers the
    connection. Not while the world does not know the source's address, by which policies judge.
    """
    if not source.addresses:
        return False
    modes = (mesh_wide, destination.same_node)
    if SameNode.MTLS in modes or source.same_node is SameNode.MTLS:
        return False
    return SameNode.DIRECT in modes or not requires_tls(world, destination, connection)


def judge_direct(
    world: World, source: Workload, destination: Workload, peer: Endpoint, target: Endpoint
) -> Admitted:
    """The destination's verdict about a direct connection; both ends are pods of this node.

    Args:
        world: what is known.
        source: the pod that the kernel saw connecting; its identity counts as proved.
        destination: the pod called.
        peer: the source's own address and port.
        target: the destination's own address and the port that its application listens on.

    Raises:
        Denied: as `verdict.judge`.
    """
    return judge(world, destination, Connection(peer, target, source.identity))


def judge_live_direct(mesh_wide: SameNode) -> Callable[[World, Workload, Connection], Admitted]:
    """What `enforce.LiveConnections` asks about direct connections: policy, and whether TLS is due by now."""

    def judge_again(world: World, destination: Workload, connection: Connection) -> Admitted:
        source = world.by_ip(connection.source.ip)
        if source and source.identity != connection.identity:
            raise Denied("the address of the source belongs to another identity now")
        if source and not allows_direct(world, source, destination, connection, mesh_wide):
            raise Denied("the connection has to be mutual TLS now")
        return judge(world, destination, connection)

    return judge_again
