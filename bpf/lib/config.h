/* Settings, by -D from the loader (ztunnel/redirect/plan.py), with their defaults. */

/* Captured calls go to one of these ports of the pod. Twin: ztunnel/redirect/capture.py. No ephemeral port by
 * the kernel's default, and reserved in each pod: a call whose own port is the one that it goes to would
 * reach itself.
 */
#define CAPTURE_FIRST 61440
#define CAPTURE_PORTS 4080
/* As many of them for each destination: they have room for what a pod closes within TIME_WAIT, and most of
 * each is free. Where few ports are, connect() walks thousands to find one, for milliseconds of its core:
 * with four, 1,000 calls a second of one destination were felt by every pod of the node from the fortieth
 * second on.
 */
#define CAPTURE_SPREAD 16
/* So many of them are tried for a call from a port that was chosen. */
#define CAPTURE_TRIES 4
/* Plaintext to a pod waits in so many queues, by its source. Twin: ztunnel/redirect/layout.py. */
#define QUEUES_BITS 3
#ifndef HBONE_PORT
#define HBONE_PORT 15008
#endif
#ifndef DNS_PORT
#define DNS_PORT 15053
#endif

/* Verdicts count only while the proxy renews its lease: every 500 ms. */
#ifndef LEASE_NS
#define LEASE_NS 2000000000ULL
#endif

/* Sizes: a node runs at most a few hundred pods (kubelet: 110 by default). */
#ifndef MAX_PODS
#define MAX_PODS 1024
#endif
#ifndef MAX_CONNECTIONS
#define MAX_CONNECTIONS 65536
#endif
#ifndef MAX_VERDICTS
#define MAX_VERDICTS 16384
#endif
#ifndef MAX_TURNED_AWAY
#define MAX_TURNED_AWAY 4096
#endif
#ifndef MAX_VIPS
#define MAX_VIPS 8192
#endif
#ifndef MAX_SLOTS
#define MAX_SLOTS 65536
#endif
/* Of 100,000 workloads with both families, and their services. Only what is used takes memory. */
#ifndef MAX_ADDRESSES
#define MAX_ADDRESSES 262144
#endif
/* Where struct sock keeps its error and its flags, by this kernel's own description; 0: it has none. */
#ifndef SK_ERR_AT
#define SK_ERR_AT 0
#endif
#ifndef SK_FLAGS_AT
#define SK_FLAGS_AT 0
#endif
/* Where struct tcp_sock says that it is a subflow of multipath TCP. */
#ifndef IS_MPTCP_AT
#define IS_MPTCP_AT 0
#endif
/* Where the running kernel has what bpf/lib/packet.h reads, by its BTF (ztunnel/redirect/plan.py). */
#ifndef SKB_LEN_AT
#define SKB_LEN_AT 0
#define SKB_DATA_LEN_AT 0
#define SKB_DATA_AT 0
#define SKB_NFCT_AT 0
#define STATE_FAMILY_AT 0
#define STATE_IN_AT 0
#define STATE_OUT_AT 0
#define STATE_NET_AT 0
#define NET_COOKIE_AT 0
#define DEVICE_INDEX_AT 0
#define NFCT_TUPLE_AT 0
#endif

/* Of one pod, so many forwarded packets are told in a second. */
#ifndef ASK_WINDOW_NS
#define ASK_WINDOW_NS 1000000000ULL
#endif
#ifndef ASK_LIMIT
#define ASK_LIMIT 500
#endif
/* 256 KiB, 2,300 records. */
#ifndef FORWARD_PAGES
#define FORWARD_PAGES 64
#endif

/* 2 MiB, 17,000 records: what 4,000 short flows leave while the proxy does something else. */
#ifndef RECORD_PAGES
#define RECORD_PAGES 512
#endif
