/* What the kernel and the proxy share about what pods only forward. Twin: ztunnel/redirect/passages.py. */

struct interface {
	u64 netns;
	u32 index;
	u32 pad;
};
_Static_assert(sizeof(struct interface) == 16, "interface");

/* What may be forwarded into a pod: from this address to this address and port, as the opener calls it. */
struct passage {
	u64 netns;
	struct addr source;
	struct addr destination;
	u16 port;
	u16 pad[3];
};
_Static_assert(sizeof(struct passage) == 48, "passage");

/* How often a pod has asked the proxy about what it forwards. */
struct allowance {
	u64 since_ns;
	u64 count;
};
_Static_assert(sizeof(struct allowance) == 16, "allowance");

/* A packet that was not forwarded: the proxy is to judge its connection, or to reset it. */
struct forwarded {
	u64 time_ns;
	u64 netns;
	struct tuple original; /* the connection as its opener calls it */
	struct tuple packet;   /* this packet, at FORWARD */
	u32 sequence;
	u32 acknowledged;
	u8 syn;
	u8 inwards;
	u8 reply;
	u8 whole_bytes;	     /* 0: `whole` is nothing */
	u32 interface;	     /* by which it came */
	u8 whole[SYN_BYTES]; /* of what opens a connection inwards: the packet at FORWARD */
};
_Static_assert(sizeof(struct forwarded) == 224, "forwarded");
