/* What the kernel reports to the proxy through ring buffers. Twin: ztunnel/redirect/layout.py. Structs only
 * grow at their end. */

enum record_event { OPENED = 1, ENDED = 2, UNANSWERED = 3, DENIED = 4 };
enum record_role { CLIENT = 1, SERVER = 2 };

/* One end's report of a direct flow, or a refusal at connect. Each end reports what it sent. */
struct record {
	u64 time_ns;
	u64 netns;
	u64 socket;
	u64 sent_bytes; /* acknowledged by the other end; neither SYN nor FIN */
	u64 duration_ns;
	struct tuple flow;
	struct endpoint asked;
	u32 srtt_us;
	u32 retransmits;
	u32 policy;
	u8 event;
	u8 role;
	u8 established;
	u8 pad;
};
_Static_assert(sizeof(struct record) == 112, "record");

/* A call that leaves the mesh unproxied, from its connect to its end; reported when it opens and when it
 * ends. */
struct outside {
	u64 netns;
	u64 socket;
	u64 since_ns;
	u64 time_ns; /* of this report */
	u64 sent_bytes;
	u64 received_bytes;
	struct tuple flow; /* no source before the SYN */
	u32 error;	   /* errno of a connection that failed; 0: none, or this kernel does not tell */
	u8 event;	   /* OPENED or ENDED */
	u8 established;
	u8 exact; /* whether received_bytes is; else it may count the peer's FIN */
	u8 pad[5];
};
_Static_assert(sizeof(struct outside) == 96, "outside");

enum held_event { CALLED = 1, GAVE_UP = 2 };

/* The longest SYN without payload: both headers with all their options. */
#define SYN_BYTES 120

/* A captured call whose SYN waits until the proxy sends it on, or whose application waits no longer. */
struct held {
	struct caller caller;
	struct endpoint asked;
	struct endpoint picked;
	u8 event;
	u8 syn_bytes;
	u8 pad[6];
	u8 syn[SYN_BYTES]; /* as it would have left, from its IP header on */
};
_Static_assert(sizeof(struct held) == 200, "held");
