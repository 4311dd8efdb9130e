/* All maps. Each says who writes it, who reads it, and what a lost entry means. */

/* enroll -> connect, sockops. Namespace cookie to pod. Lost: the pod is out of the mesh, so it is never
 * evicted. */
BPF_TABLE("hash", u64, struct pod, enrolled, MAX_PODS);

/* enroll -> connect, sockops, sk_lookup. A pod's addresses to its namespace. Lost: captured instead of left
 * alone. */
BPF_TABLE("hash", struct addr, u64, owners, MAX_PODS * 4);

/* enroll, bump -> connect, sockops, sk_lookup. Namespace to generation, never reused. Lost: verdicts do not
 * count. */
BPF_TABLE("hash", u64, u64, generations, MAX_PODS);

/* start -> connect. Cgroups whose sockets are the proxy's. Lost: the proxy's calls are captured. */
BPF_TABLE("hash", u64, u32, own_cgroups, 64);

/* start -> sockops. The node's own namespace to the rule for its processes. Lost: probes are captured. */
BPF_TABLE("hash", u64, struct node_clients, node_rules, 16);

/* start -> sockops. Cgroups of the node that may reach pods. Lost: their probes are captured. */
BPF_TABLE("hash", u64, u32, node_cgroups, 256);

/* start -> connect. Which pods' processes have to wait. Lost: never. */
BPF_TABLE("array", u32, struct start_rules, start_rules, 1);

/* enroll -> connect. A pod's cgroup to the time until which its processes may not call, by CLOCK_MONOTONIC;
 * 0: the pod needs not wait. Lost: where all pods have to wait, it has to; else its calls go as they are. */
BPF_TABLE("hash", u64, u64, starting, MAX_PODS);

/* connect -> enroll. Pods whose processes called before the pod was enrolled or known not to be, and when.
 * Lost: the pod is not counted. */
BPF_TABLE("lru_hash", u64, u64, early, MAX_PODS);

/* connect, sockops -> sockops, getpeername. Socket cookie to intent. Lost: the proxy refuses, getpeername
 * tells the proxy's address, a direct flow ends uncounted. */
BPF_TABLE("lru_hash", u64, struct intent, intents, MAX_CONNECTIONS);

/* sockops -> egress, sk_lookup, proxy, which takes it at accept; of a call that it was told of, sockops
 * removes it at the end. Lost before the SYN is sent on, or the accept of one that was not told: the call is
 * refused. */
BPF_TABLE("lru_hash", struct caller, struct destination, callers, MAX_CONNECTIONS);

/* proxy, sockops, sk_lookup -> sk_lookup, sockops, proxy. 4-tuples that may pass, and whether their SYN has
 * come. Lost before the SYN: captured; later: nothing, but for one that is not answered: another way is
 * taken. */
BPF_TABLE("lru_hash", struct tuple, struct admission, admitted, MAX_CONNECTIONS);

/* sockops -> connect. Connections between pods of this node that a call from a chosen port may meet, and who
 * has them: the cookie of an application's socket, 0: the proxy. Lost: such a call to the same pod by another
 * name fails (EADDRNOTAVAIL). */
BPF_TABLE("lru_hash", struct tuple, u64, taken, MAX_VERDICTS);

/* proxy -> sk_lookup. Addresses whose handshakes the proxy does not take, and until when, by CLOCK_MONOTONIC.
 * Lost: the proxy turns them away itself. */
BPF_TABLE("lru_hash", struct addr, u64, turned_away, MAX_TURNED_AWAY);

/* proxy -> sk_lookup. A pod's addresses to the proxy's listeners in it. Lost: what they would take is
 * refused. */
BPF_TABLE("sockhash", struct listener, u64, listeners, MAX_PODS * 32);

/* proxy -> connect. A cache of verdicts. Lost: the proxy is asked again. */
BPF_TABLE("lru_hash", struct question, struct verdict, verdicts, MAX_VERDICTS);

/* proxy -> connect. VIPs to slot tables, and their slots. Lost: the proxy picks. */
BPF_TABLE("hash", struct endpoint, struct vip, vips, MAX_VIPS);
BPF_TABLE("hash", struct slot, struct endpoint, slots, MAX_SLOTS);

/* proxy -> connect. Addresses about which something is to be decided. Not all of them are here while
 * mesh_known is 0: then every call is captured. Lost: never, it is no cache. */
BPF_F_TABLE("hash", struct addr, u32, mesh_addresses, MAX_ADDRESSES, BPF_F_NO_PREALLOC);
BPF_TABLE("array", u32, u32, mesh_known, 1);

/* connect, proxy -> connect, proxy. Client and VIP to the endpoint that it keeps. Lost: it gets another one.
 */
BPF_TABLE("lru_hash", struct question, struct affinity, affinities, MAX_VERDICTS);

/* proxy -> connect, sk_lookup, egress. When verdicts were last confirmed, by CLOCK_MONOTONIC; 0: never. */
BPF_TABLE("array", u32, u64, lease, 1);

/* enroll -> forward, connect. The interfaces by which a pod is reached. Lost: what it forwards, and what is
 * bound to this one, is left alone. */
BPF_TABLE("hash", struct interface, u32, uplinks, MAX_PODS * 4);

/* proxy -> forward. What may be forwarded into a pod, with the pod's generation. Lost: the proxy is asked
 * again. */
BPF_TABLE("lru_hash", struct passage, u64, passages, MAX_VERDICTS);

/* forward. How often each pod asks. Lost: it may ask anew. */
BPF_TABLE("lru_hash", u64, struct allowance, asked, MAX_PODS);

/* forward -> proxy. Lost: a SYN is sent again, and not reset at once. */
BPF_RINGBUF_OUTPUT(forwards, FORWARD_PAGES);

/* proxy -> egress, sockops. Who takes held calls: when that process began; 0: calls are not held. */
BPF_TABLE("array", u32, u64, holder, 1);

/* connect, sockops -> sockops, sock_release. Socket cookie to a call that leaves the mesh. Lost: its end is
 * not reported. */
BPF_TABLE("lru_hash", u64, struct outside, outside, MAX_CONNECTIONS);

/* connect, sockops -> proxy. Lost records are counted. Calls that leave the mesh, which any pod may make
 * without end, have a buffer of their own. */
BPF_RINGBUF_OUTPUT(records, RECORD_PAGES);
BPF_RINGBUF_OUTPUT(left, RECORD_PAGES);

/* egress, sockops -> proxy. Calls that wait. Lost: the call does not wait. */
BPF_RINGBUF_OUTPUT(waiting, RECORD_PAGES);

/* every hook -> proxy. By enum outcome. */
BPF_TABLE("percpu_array", u32, u64, outcomes, OUTCOMES);
