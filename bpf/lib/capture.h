/* Where a captured call goes to in its own pod, and where its original destination waits for the proxy. */

/* One source port can call several destinations, and one destination takes more calls than a port has. */
static __always_inline u16 capture_port(struct bpf_sock_addr *ctx, const struct endpoint *asked)
{
	struct bpf_sock *sock = ctx->sk;
	u32 own = sock ? sock->src_port : 0, hash = asked->port;
#pragma unroll
	for (int word = 0; word < 4; word++) {
		hash = (hash ^ asked->ip.word[word]) * 0x9e3779b1;
		hash ^= hash >> 15;
	}
	/* Who has chosen a port counts on its being taken once for each destination. */
	if (!own)
		hash += bpf_get_prandom_u32() % CAPTURE_SPREAD;
	u16 port = CAPTURE_FIRST + hash % CAPTURE_PORTS;
	return port == own ? port ^ 1 : port;
}

static __always_inline void caller_of(u64 netns, const struct tuple *flow, struct caller *caller)
{
	caller->netns = netns;
	caller->ip = flow->source;
	caller->port = flow->source_port;
	caller->capture = flow->destination_port;
}

static __always_inline void forget_caller(u64 netns, const struct tuple *flow)
{
	struct caller caller = {};
	caller_of(netns, flow, &caller);
	callers.delete(&caller);
}

/* Whether a program that runs after ours on connect has sent the call elsewhere: past the mesh. */
static __always_inline bool is_astray(const struct intent *intent, const struct tuple *flow)
{
	if (intent->kind == DIRECT)
		return !same(&flow->destination, &intent->picked.ip) ||
		       flow->destination_port != intent->picked.port;
	struct addr ip = flow->destination;
	u64 *owner = owners.lookup(&ip);
	return !owner || *owner != intent->netns || flow->destination_port < CAPTURE_FIRST ||
	       flow->destination_port >= CAPTURE_FIRST + CAPTURE_PORTS;
}
