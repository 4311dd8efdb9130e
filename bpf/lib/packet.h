/* A packet at a netfilter hook: which connection it belongs to, and what its TCP header says. */

#define IPV4 2
#define IPV6 10
#define TCP_HEADER 20
#define SYN 0x02
#define RST 0x04
#define ACK 0x10
/* enum ip_conntrack_info, the low bits of skb->_nfct: from here on a packet goes back to the opener. */
#define REPLIES 3
#define INFO 7ULL
/* More extension headers than anybody sends. */
#define EXTENSIONS 4

static long (*read_kernel)(void *, u32, const void *) = (void *)113;

/* The kernel's own structs, where its BTF says that their members are (lib/config.h). */
#define FIELD_(size, pointer, offset)                                                                        \
	({                                                                                                   \
		u64 _value;                                                                                  \
		asm volatile("%0 = *(" #size " *)(%1 + " #offset ")" : "=r"(_value) : "r"(pointer));         \
		_value;                                                                                      \
	})
#define FIELD(size, pointer, offset) FIELD_(size, pointer, offset)

enum reading { READ, OTHER_PROTOCOL, UNREADABLE };

/* struct nf_conntrack_tuple */
struct tracked {
	u32 source[4];
	u16 source_port;
	u16 family;
	u32 destination[4];
	u16 destination_port;
	u8 protocol;
	u8 direction;
};
_Static_assert(sizeof(struct tracked) == 40, "tracked");

static __always_inline void set_addr(struct addr *to, const u32 *from, bool v4)
{
	if (v4) {
		to->word[2] = V4_MAPPED;
		to->word[3] = from[0];
		return;
	}
	to->word[0] = from[0];
	to->word[1] = from[1];
	to->word[2] = from[2];
	to->word[3] = from[3];
}

static __always_inline enum reading read_v4(u64 at, struct tuple *packet, u32 *header)
{
	u32 ip[5] = {};
	if (read_kernel(ip, sizeof(ip), (void *)at))
		return UNREADABLE;
	if ((bpf_ntohl(ip[2]) >> 16 & 0xff) != TCP)
		return OTHER_PROTOCOL;
	*header = (bpf_ntohl(ip[0]) >> 24 & 0xf) * 4;
	set_addr(&packet->source, &ip[3], true);
	set_addr(&packet->destination, &ip[4], true);
	return bpf_ntohl(ip[1]) & 0x1fff ? UNREADABLE : READ; /* a later fragment has no TCP header */
}

static __always_inline bool is_extension(u32 next)
{
	return next == 0 || next == 43 || next == 44 || next == 51 || next == 60 || next == 135;
}

/* What stands behind extension headers is not read, only what it is: TCP is not passed by in this way. */
static __always_inline enum reading read_v6(u64 at, struct tuple *packet, u32 *header)
{
	u32 ip[10] = {};
	u8 extension[2] = {};
	if (read_kernel(ip, sizeof(ip), (void *)at))
		return UNREADABLE;
	u32 next = bpf_ntohl(ip[1]) >> 8 & 0xff, where = sizeof(ip);
	*header = sizeof(ip);
	set_addr(&packet->source, &ip[2], false);
	set_addr(&packet->destination, &ip[6], false);
	if (next == TCP)
		return READ;
#pragma unroll
	for (int each = 0; each < EXTENSIONS; each++) {
		if (!is_extension(next))
			break;
		if (read_kernel(extension, sizeof(extension), (void *)(at + where)))
			return UNREADABLE;
		where += next == 44 ? 8 : next == 51 ? (extension[1] + 2) * 4 : (extension[1] + 1) * 8;
		next = extension[0];
	}
	return next == TCP || is_extension(next) ? UNREADABLE : OTHER_PROTOCOL;
}

static __always_inline enum reading read_packet(u64 skb, u64 family, struct forwarded *seen, u8 *flags)
{
	u64 at = FIELD(u64, skb, SKB_DATA_AT);
	u32 header = 0, tcp[5] = {}, linear = FIELD(u32, skb, SKB_LEN_AT) - FIELD(u32, skb, SKB_DATA_LEN_AT);
	enum reading found =
	    family == IPV4 ? read_v4(at, &seen->packet, &header) : read_v6(at, &seen->packet, &header);
	if (found != READ)
		return found;
	if (linear < header + TCP_HEADER || read_kernel(tcp, sizeof(tcp), (void *)(at + header)))
		return UNREADABLE;
	seen->packet.source_port = bpf_ntohl(tcp[0]) >> 16;
	seen->packet.destination_port = bpf_ntohl(tcp[0]) & 0xffff;
	seen->sequence = bpf_ntohl(tcp[1]);
	seen->acknowledged = bpf_ntohl(tcp[2]);
	*flags = bpf_ntohl(tcp[3]) >> 16 & 0xff;
	return READ;
}

/* As the opener sees the connection: what connection tracking says, where it runs. */
static __always_inline enum reading read_connection(u64 skb, struct forwarded *seen, bool *known)
{
	u64 nfct = FIELD(u64, skb, SKB_NFCT_AT), connection = nfct & ~INFO;
	struct tracked tracked = {};
	*known = connection;
	seen->original = seen->packet;
	if (!connection)
		return READ;
	if (read_kernel(&tracked, sizeof(tracked), (void *)(connection + NFCT_TUPLE_AT)) ||
	    tracked.protocol != TCP)
		return UNREADABLE;
	set_addr(&seen->original.source, tracked.source, tracked.family == IPV4);
	set_addr(&seen->original.destination, tracked.destination, tracked.family == IPV4);
	seen->original.source_port = bpf_ntohs(tracked.source_port);
	seen->original.destination_port = bpf_ntohs(tracked.destination_port);
	seen->reply = (nfct & INFO) >= REPLIES;
	return READ;
}
