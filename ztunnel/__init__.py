"""ztunnel: an ambient mesh data plane. The life of one connection, by file:

1. An application in an enrolled pod calls `connect`. `bpf/connect4.c`, `bpf/connect6.c` look it up: a verdict
   that the kernel knows is carried out at once; everything else is sent to the pod's own address, and
   `bpf/sockops.c` remembers where it wanted to go.
2. `outbound/accept.py` accepts it and asks `redirect/recall.py` for that destination; `outbound/decision.py`
   decides, from the world alone (`state/world.py`), which way it goes; `outbound/connect.py` starts that way.
3. Across nodes it becomes one stream of a pooled session: `hbone/pool.py` chooses, `outbound/dial.py` opens a
   new session where none can take it (`hbone/dial.py`, `identity/secure.py`), `hbone/carry.py` carries its
   bytes.
4. On the other node `inbound/accept.py` accepts the session, `identity/chain.py` says who the peer is,
   `inbound/decision.py` and `authz/verdict.py` say whether it may, `inbound/connect.py` connects the
   application.
5. `flow/engine.py` moves the bytes; `telemetry/report.py` writes the access-log line and counts.

Which pods are enrolled is `pods/`; what the mesh looks like comes over `xds/` into `state/`, from `control/`
or istiod. `run/` puts a node together.
"""

__version__ = "0.1.0"
