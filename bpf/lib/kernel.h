/* What the kernel offers, by names that the hooks use. Helpers stand by number: bcc 0.26 does not know them
 * all. */

static u64 (*socket_cookie)(void *) = (void *)46;
static u64 (*current_cgroup)(void) = (void *)80;
static long (*release)(void *) = (void *)86;
static u64 (*netns_cookie)(void *) = (void *)122;
static u64 (*current_ancestor)(int) = (void *)123;
static void *(*tcp_sock)(void *) = (void *)137;
static long (*assign)(void *, void *, u64) = (void *)124;
static int (*set_errno)(int) = (void *)187;

/* clang merges neighbouring loads of v4 and v6 context fields into one that the verifier refuses. */
#define LOAD32(context, offset)                                                                              \
	({                                                                                                   \
		u32 _value;                                                                                  \
		asm volatile("%0 = *(u32 *)(%1 + " #offset ")" : "=r"(_value) : "r"(context));               \
		_value;                                                                                      \
	})

#define LOAD64(context, offset)                                                                              \
	({                                                                                                   \
		u64 _value;                                                                                  \
		asm volatile("%0 = *(u64 *)(%1 + " #offset ")" : "=r"(_value) : "r"(context));               \
		_value;                                                                                      \
	})

#define V4_MAPPED bpf_htonl(0xffff)
#define AF_INET 2
#define TCP 6
#define MPTCP 262
#define TCP_SYN 2
#define TCP_ACK 16
#define ETH_IPV4 0x0800
#define ETH_IPV6 0x86dd
#define ECONNREFUSED 111
#define ENETUNREACH 101
#define SOCK_DONE 1 /* enum sock_flags: the peer has sent its FIN */

static __always_inline void count(u32 outcome)
{
	u64 *counter = outcomes.lookup(&outcome);
	if (counter)
		(*counter)++;
}

static __always_inline bool same(const struct addr *one, const struct addr *other)
{
	return one->word[0] == other->word[0] && one->word[1] == other->word[1] &&
	       one->word[2] == other->word[2] && one->word[3] == other->word[3];
}

static __always_inline bool is_endpoint(const struct endpoint *one, const struct endpoint *other)
{
	u32 differ = one->port ^ other->port;
#pragma unroll
	for (int word = 0; word < 4; word++)
		differ |= one->ip.word[word] ^ other->ip.word[word];
	return !differ;
}

/* Of a socket that is bound; 0: the kernel chooses its port when it is connected. */
static __always_inline u16 own_port(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sock = ctx->sk;
	return sock ? sock->src_port : 0;
}

static __always_inline bool is_v4(const struct addr *ip)
{
	return ip->word[0] == 0 && ip->word[1] == 0 && ip->word[2] == V4_MAPPED;
}

/* Loopback, unspecified (which connect() takes for loopback) and multicast. */
static __always_inline bool is_local(const struct addr *ip)
{
	u32 first = bpf_ntohl(ip->word[0]), last = bpf_ntohl(ip->word[3]);
	if (is_v4(ip))
		return last >> 24 == 127 || last == 0 || last >> 28 == 0xe;
	if (first >> 24 == 0xff)
		return true;
	return ip->word[0] == 0 && ip->word[1] == 0 && ip->word[2] == 0 && last <= 1;
}

static __always_inline bool is_current(u64 netns, u64 generation)
{
	u64 *now = generations.lookup(&netns);
	return now && *now == generation;
}

static __always_inline bool lease_holds(void)
{
	u32 only = 0;
	u64 *renewed_ns = lease.lookup(&only);
	return renewed_ns && *renewed_ns && bpf_ktime_get_ns() - *renewed_ns < LEASE_NS;
}

/* A proxy that has been seen alive does not do anything any more. */
static __always_inline bool stands_still(void)
{
	u32 only = 0;
	u64 *renewed_ns = lease.lookup(&only);
	return renewed_ns && *renewed_ns && bpf_ktime_get_ns() - *renewed_ns >= LEASE_NS;
}

static __always_inline void emit(struct record *record)
{
	record->time_ns = bpf_ktime_get_ns();
	if (records.ringbuf_output(record, sizeof(*record), 0))
		count(RECORD_LOST);
}
