/* A packet that a pod only forwards, between its own interface and something behind it: a container, a VM, a
 * VPN. Inwards it needs a verdict of the proxy; outwards no connection is opened, because nobody could give
 * it the pod's identity. What is not to pass is dropped, and told to the proxy, which resets it. */

enum { NF_DROP = 0, NF_ACCEPT = 1 };

struct nf_context {
	u64 state;
	u64 skb;
};

static __always_inline int pass(enum outcome why)
{
	count(why);
	return NF_ACCEPT;
}

static __always_inline int stop(enum outcome why)
{
	count(why);
	return NF_DROP;
}

static __always_inline bool is_uplink(u64 netns, u64 device)
{
	struct interface at = {};
	at.netns = netns;
	at.index = FIELD(u32, device, DEVICE_INDEX_AT);
	return uplinks.lookup(&at);
}

/* A pod that sends SYNs without end must not fill the buffer for all others. */
static __always_inline bool may_ask(u64 netns)
{
	u64 now = bpf_ktime_get_ns();
	struct allowance fresh = {}, *used = asked.lookup(&netns);
	if (used && now - used->since_ns < ASK_WINDOW_NS)
		return __sync_fetch_and_add(&used->count, 1) < ASK_LIMIT;
	fresh.since_ns = now;
	fresh.count = 1;
	asked.update(&netns, &fresh);
	return true;
}

static __always_inline int ask(struct forwarded *seen, enum outcome why)
{
	seen->time_ns = bpf_ktime_get_ns();
	if (!may_ask(seen->netns) || forwards.ringbuf_output(seen, sizeof(*seen), 0))
		count(FORWARD_NOT_TOLD);
	return stop(why);
}

static __always_inline void turn(struct tuple *to, const struct tuple *from)
{
	to->source = from->destination;
	to->destination = from->source;
	to->source_port = from->destination_port;
	to->destination_port = from->source_port;
}

/* Who may reach the pod's applications unproxied may reach what is behind it: probes of the node, direct
 * flows. A connection that stands has been judged again by the proxy where something changed. */
static __always_inline bool has_admission(struct forwarded *seen)
{
	struct admission *admission = admitted.lookup(&seen->original);
	return admission && (!seen->syn || !admission->destination ||
			     is_current(admission->destination, admission->generation));
}

static __always_inline bool may_pass(struct forwarded *seen)
{
	if (has_admission(seen))
		return true;
	struct passage passage = {};
	passage.netns = seen->netns;
	passage.source = seen->original.source;
	passage.destination = seen->original.destination;
	passage.port = seen->original.destination_port;
	u64 *generation = passages.lookup(&passage);
	return generation && is_current(seen->netns, *generation) && (!seen->syn || lease_holds());
}

/* The proxy sends it on where it may pass: the opener would wait for a second until it sends another. */
static __always_inline void take_whole(struct forwarded *seen, u64 skb)
{
	u64 bytes = FIELD(u32, skb, SKB_LEN_AT);
	if (bytes < TCP_HEADER || FIELD(u32, skb, SKB_DATA_LEN_AT))
		return;
	asm volatile("" : "+r"(bytes)); /* the verifier wants both bounds of this very register */
	if (bytes > SYN_BYTES)
		return;
	if (!read_kernel(seen->whole, bytes, (void *)FIELD(u64, skb, SKB_DATA_AT)))
		seen->whole_bytes = bytes;
}

static __always_inline int inwards(struct forwarded *seen, u64 skb)
{
	seen->inwards = 1;
	if (may_pass(seen))
		return pass(FORWARD_ADMITTED);
	if (seen->syn)
		take_whole(seen, skb);
	return ask(seen, FORWARD_ASKED);
}

int forward(struct nf_context *ctx)
{
	u64 state = LOAD64(ctx, 0), skb = LOAD64(ctx, 8);
	struct forwarded seen = {};
	bool tracked = false;
	u8 flags = 0;

	u64 net = FIELD(u64, state, STATE_NET_AT);
	seen.netns = FIELD(u64, net, NET_COOKIE_AT);
	struct pod *pod = enrolled.lookup(&seen.netns);
	if (!pod)
		return pass(FORWARD_STRANGER);
	if (pod->flags & (POD_FORWARDS | POD_LEAVING))
		return pass(FORWARD_LEFT);
	u64 device = FIELD(u64, state, STATE_IN_AT);
	bool from_outside = device && is_uplink(seen.netns, device);
	seen.interface = device ? FIELD(u32, device, DEVICE_INDEX_AT) : 0;
	device = FIELD(u64, state, STATE_OUT_AT);
	bool to_outside = device && is_uplink(seen.netns, device);
	bool pending = pod->flags & POD_REFUSED;
	if (!from_outside && !to_outside && !pending)
		return pass(FORWARD_INNER);
	enum reading reading = read_packet(skb, FIELD(u8, state, STATE_FAMILY_AT), &seen, &flags);
	if (reading == READ)
		reading = read_connection(skb, &seen, &tracked);
	if (reading != READ)
		return reading == OTHER_PROTOCOL ? pass(FORWARD_NOT_TCP) : stop(FORWARD_UNREADABLE);
	if (pending)
		return stop(FORWARD_PENDING);
	seen.syn = (flags & (SYN | ACK)) == SYN;
	if (from_outside != seen.reply)
		return inwards(&seen, skb);
	if (tracked || seen.syn)
		return seen.syn ? ask(&seen, FORWARD_REFUSED) : pass(FORWARD_OLDER);
	/* Nothing tracks connections here: what leaves and opens none is the answer to one from outside. */
	seen.reply = 1;
	turn(&seen.original, &seen.packet);
	return inwards(&seen, skb);
}
