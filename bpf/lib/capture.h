/* Where a captured call goes to in its own pod, and where its original destination waits for the proxy. */

/* Who has chosen a port counts on its being taken once for each destination, and on no other destination's
 * taking it. What he has closed may be on its way back through the proxies yet: it does not count. */
static __always_inline void find_free(struct caller *caller, u32 hash, const struct endpoint *asked)
{
#pragma unroll
	for (u32 each = 0; each < CAPTURE_TRIES; each++) {
		caller->capture = CAPTURE_FIRST + (hash + each) % CAPTURE_PORTS;
		if (caller->capture == caller->port)
			caller->capture ^= 1;
		struct destination *known = callers.lookup(caller);
		if (!known || (!known->ended && is_endpoint(&known->asked, asked)))
			break;
	}
}

/* One source port can call several destinations, and one destination takes more calls than a port has. `own`
 * is the pod's address: calls from another one are not looked for. */
static __always_inline u16 capture_port(struct bpf_sock_addr *ctx, u64 netns, const struct addr *own,
					const struct endpoint *asked)
{
	struct caller caller = {};
	u32 hash = asked->port;
#pragma unroll
	for (int word = 0; word < 4; word++) {
		hash = (hash ^ asked->ip.word[word]) * 0x9e3779b1;
		hash ^= hash >> 15;
	}
	caller.port = own_port(ctx);
	if (!caller.port)
		return CAPTURE_FIRST + (hash + bpf_get_prandom_u32() % CAPTURE_SPREAD) % CAPTURE_PORTS;
	caller.netns = netns;
	caller.ip = *own;
	find_free(&caller, hash, asked);
	return caller.capture;
}

static __always_inline void caller_of(u64 netns, const struct tuple *flow, struct caller *caller)
{
	caller->netns = netns;
	caller->ip = flow->source;
	caller->port = flow->source_port;
	caller->capture = flow->destination_port;
}

static __always_inline void remember_caller(const struct intent *intent, const struct tuple *flow)
{
	struct caller caller = {};
	struct destination destination = {};
	caller_of(intent->netns, flow, &caller);
	destination.asked = intent->asked;
	destination.picked = intent->picked;
	count(callers.update(&caller, &destination) ? CALLER_NOT_MOVED : CALLER_MOVED);
}

/* The application has closed it, or sends no more. */
static __always_inline void ends(u64 socket)
{
	struct intent *intent = intents.lookup(&socket);
	struct caller caller = {};
	if (!intent || intent->kind != CAPTURED || !intent->has_port)
		return;
	caller_of(intent->netns, &intent->flow, &caller);
	struct destination *destination = callers.lookup(&caller);
	if (destination)
		destination->ended = 1;
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
