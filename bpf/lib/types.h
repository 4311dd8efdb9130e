/* What the kernel and the proxy share. Twin: ztunnel/redirect/layout.py. Structs only grow at their end. */

/* 16 bytes in network order for both families: IPv4 is v4-mapped. */
struct addr {
	u32 word[4];
};
_Static_assert(sizeof(struct addr) == 16, "addr");

/* Ports are in host order. */
struct endpoint {
	struct addr ip;
	u16 port;
	u16 pad;
};
_Static_assert(sizeof(struct endpoint) == 20, "endpoint");

/* A connection as it is on the wire, from its opener's side. */
struct tuple {
	struct addr source;
	struct addr destination;
	u16 source_port;
	u16 destination_port;
};
_Static_assert(sizeof(struct tuple) == 36, "tuple");

/* POD_REFUSED: nothing listens in it (yet), and nothing leaves or reaches it. POD_FORWARDS: what it only
 * forwards is left alone. POD_LEAVING: all is left alone but calls that were captured before. */
enum pod_flags { POD_REFUSED = 1, POD_FORWARDS = 2, POD_LEAVING = 4 };

/* An enrolled pod: where the proxy listens in it. A family that it has not is all zero. */
struct pod {
	struct addr ip4;
	struct addr ip6;
	u32 flags;
	u32 pad;
};
_Static_assert(sizeof(struct pod) == 40, "pod");

/* ASTRAY: another program has sent it elsewhere after ours. */
enum intent_kind { CAPTURED = 1, DIRECT = 2, SERVED = 3, ASTRAY = 4 };

/* What a socket is about, from connect (SERVED: from its establishment) to its end. */
struct intent {
	struct endpoint asked;	/* by the application */
	struct endpoint picked; /* of a VIP's slots, or asked itself when direct; port 0: none */
	u64 netns;
	u64 destination; /* namespace of the other end, when direct */
	u64 generation;	 /* of that other end */
	u64 since_ns;
	struct tuple flow; /* zero before the SYN */
	u8 kind;
	u8 established;
	u8 has_port; /* its own, since before it was connected */
	u8 pad;
};
_Static_assert(sizeof(struct intent) == 112, "intent");

/* A captured connection as the proxy sees it: its peer, and the pod's own port at which it was accepted. */
struct caller {
	u64 netns;
	struct addr ip;
	u16 port;
	u16 capture, pad[2];
};
_Static_assert(sizeof(struct caller) == 32, "caller");

struct destination {
	struct endpoint asked;
	struct endpoint picked; /* port 0: none */
	u64 holder;		/* the proxy that was told of its SYN; 0: none */
	u32 ended;		/* the application sends no more */
	u32 pad;
};
_Static_assert(sizeof(struct destination) == 56, "destination");

enum listener_kind { INBOUND = 1, OUTBOUND = 2 };

/* Which of the proxy's listeners in a pod, by an address of the pod; of a kind there may be several. */
struct listener {
	struct addr ip;
	u16 kind, queue;
};
_Static_assert(sizeof(struct listener) == 20, "listener");

enum admission_kind { BY_PROXY = 1, BY_VERDICT = 2, BY_NODE = 3, BY_SELF = 4 };

/* Why a 4-tuple may reach the application unproxied. A destination of 0 needs no generation. */
struct admission {
	u64 destination;
	u64 generation;
	u32 kind;
	u32 arrived; /* its SYN has been seen in the pod */
};
_Static_assert(sizeof(struct admission) == 24, "admission");

struct question {
	u64 source;
	struct endpoint destination;
	u32 pad;
};
_Static_assert(sizeof(struct question) == 32, "question");

enum verdict_kind { GO_DIRECT = 1, DENY = 2 };

/* `to` repeats the question's destination: an entry that is reused while it is read answers for nobody. */
struct verdict {
	u64 destination; /* namespace; 0: not one of ours, its generation does not count */
	u64 source_generation;
	u64 destination_generation;
	u32 kind;
	u32 policy;
	struct endpoint to;
	u32 pad;
};
_Static_assert(sizeof(struct verdict) == 56, "verdict");

/* A VIP's endpoints stand in slots 0 to slots-1 of a table that is never changed, only replaced. */
struct vip {
	u32 table;
	u32 slots;
	u32 affinity_s; /* a client keeps its endpoint so long after its last call; 0: it does not */
};
_Static_assert(sizeof(struct vip) == 12, "vip");

/* A client's endpoint of a VIP. One of another table may be none any more: the proxy knows. */
struct affinity {
	struct endpoint endpoint;
	u32 table;
	u64 used_ns;
};
_Static_assert(sizeof(struct affinity) == 32, "affinity");

struct slot {
	u32 table;
	u32 index;
};
_Static_assert(sizeof(struct slot) == 8, "slot");
