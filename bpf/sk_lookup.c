/* A SYN arrives in an enrolled pod: a captured call of the pod and what comes from outside go to the proxy;
 * what the pod calls of itself, what is admitted and HBONE pass. A pod that leaves the mesh has only the
 * first left: its captured calls wait for the far end, and find the proxy when that has answered. */

enum { DROP = 0, PASS = 1 };

static __always_inline int inbound(enum outcome why, int what)
{
	count(why);
	return what;
}

static __always_inline void arriving(struct bpf_sk_lookup *ctx, struct tuple *flow)
{
	if (ctx->family == AF_INET) {
		flow->source.word[2] = V4_MAPPED;
		flow->source.word[3] = LOAD32(ctx, 16);
		flow->destination.word[2] = V4_MAPPED;
		flow->destination.word[3] = LOAD32(ctx, 40);
	} else {
		flow->source.word[0] = LOAD32(ctx, 20);
		flow->source.word[1] = LOAD32(ctx, 24);
		flow->source.word[2] = LOAD32(ctx, 28);
		flow->source.word[3] = LOAD32(ctx, 32);
		flow->destination.word[0] = LOAD32(ctx, 44);
		flow->destination.word[1] = LOAD32(ctx, 48);
		flow->destination.word[2] = LOAD32(ctx, 52);
		flow->destination.word[3] = LOAD32(ctx, 56);
	}
	flow->source_port = bpf_ntohs(ctx->remote_port);
	flow->destination_port = ctx->local_port;
}

/* By its addresses alone, which a datagram does not prove. */
static __always_inline bool is_own(struct tuple *flow)
{
	if (same(&flow->source, &flow->destination))
		return true;
	u64 *here = owners.lookup(&flow->destination), *there = owners.lookup(&flow->source);
	return here && there && *here == *there;
}

/* enum pod_flags of the pod that is called. */
static __always_inline u32 flags_of(struct tuple *flow)
{
	u64 *owner = owners.lookup(&flow->destination), netns = owner ? *owner : 0;
	struct pod *pod = enrolled.lookup(&netns);
	return pod ? pod->flags : 0;
}

static __always_inline bool is_admitted(const struct admission *admission)
{
	if (!admission)
		return false;
	if (!admission->destination || is_current(admission->destination, admission->generation))
		return true;
	count(INBOUND_STALE);
	return false;
}

static __always_inline bool is_captured(const struct tuple *flow)
{
	struct addr local = flow->destination;
	struct caller caller = {};
	u64 *owner = owners.lookup(&local);
	if (!owner)
		return false;
	caller_of(*owner, flow, &caller);
	return callers.lookup(&caller) != 0;
}

/* A source has one of the pod's queues: whoever fills it makes those of the others no longer. */
static __always_inline u32 queue_of(const struct addr *source)
{
	u32 word = source->word[0] ^ source->word[1] ^ source->word[2] ^ source->word[3];
	return word * 2654435761u >> (32 - QUEUES_BITS);
}

static __always_inline int to_proxy(struct bpf_sk_lookup *ctx, const struct tuple *flow, u32 kind,
				    enum outcome why)
{
	struct listener key = {};
	key.ip = flow->destination;
	key.kind = kind;
	key.queue = kind == INBOUND ? queue_of(&flow->source) : 0;
	void *listener = listeners.lookup(&key);
	if (!listener && key.queue) {
		key.queue = 0;
		listener = listeners.lookup(&key);
	}
	if (!listener)
		return inbound(INBOUND_NO_LISTENER, DROP);
	long failed = assign(ctx, listener, 0);
	release(listener);
	return failed ? inbound(INBOUND_NOT_ASSIGNED, DROP) : inbound(why, PASS);
}

/* What the proxy would close at once costs it nothing here. */
static __always_inline int hbone(const struct tuple *flow)
{
	if (stands_still())
		return inbound(INBOUND_LAPSED, DROP);
	struct addr source = flow->source;
	u64 *until_ns = turned_away.lookup(&source);
	if (until_ns && bpf_ktime_get_ns() < *until_ns)
		return inbound(INBOUND_TURNED_AWAY, DROP);
	return inbound(INBOUND_HBONE, PASS);
}

int sk_lookup(struct bpf_sk_lookup *ctx)
{
	struct tuple flow = {};
	arriving(ctx, &flow);
	if (is_local(&flow.destination))
		return inbound(INBOUND_LOOPBACK, PASS);
	u32 flags = flags_of(&flow);
	if (ctx->protocol != TCP) {
		if (flags & POD_LEAVING)
			return inbound(INBOUND_LEFT, PASS);
		if (flow.destination_port == DNS_PORT && !is_own(&flow))
			return inbound(INBOUND_DNS, DROP);
		return inbound(INBOUND_NOT_TCP, PASS);
	}
	if (is_captured(&flow))
		return stands_still() ? inbound(OUTBOUND_STALE, DROP)
				      : to_proxy(ctx, &flow, OUTBOUND, OUTBOUND_ASSIGNED);
	if (flags & POD_LEAVING)
		return inbound(INBOUND_LEFT, PASS);
	struct admission *admission = admitted.lookup(&flow);
	if (admission && admission->kind == BY_SELF)
		return inbound(INBOUND_OWN, PASS);
	if (flow.destination_port == DNS_PORT)
		return inbound(INBOUND_DNS, DROP);
	if (flags & POD_REFUSED)
		return inbound(INBOUND_PENDING, DROP);
	if (flow.destination_port == HBONE_PORT)
		return hbone(&flow);
	if (is_admitted(admission)) {
		admission->arrived = 1;
		return inbound(INBOUND_ADMITTED, PASS);
	}
	return stands_still() ? inbound(INBOUND_LAPSED, DROP)
			      : to_proxy(ctx, &flow, INBOUND, INBOUND_CAPTURED);
}
