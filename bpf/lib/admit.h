/* Which 4-tuples may reach an application unproxied, decided before their SYN leaves. */

static __always_inline bool may_reach_pods(u64 netns)
{
	u64 cgroup = current_cgroup();
	struct node_clients *clients = node_rules.lookup(&netns);
	if (!clients)
		return false;
	if (clients->rule == ALL_OUTSIDE &&
	    (!clients->level || current_ancestor(clients->level) != clients->except))
		return true;
	if (node_cgroups.lookup(&cgroup))
		return true;
	count(NODE_NOT_LISTED);
	return false;
}

static __always_inline bool admit(struct tuple *flow, u64 destination, u64 generation, u32 kind)
{
	struct admission admission = {};
	admission.destination = destination;
	admission.generation = generation;
	admission.kind = kind;
	if (!admitted.update(flow, &admission))
		return true;
	count(ADMISSION_NOT_STORED);
	return false;
}

/* By a verdict. A call from a port that the kernel has chosen meets no other. */
static __always_inline void admit_direct(const struct intent *intent, struct tuple *flow, u64 socket)
{
	if (admit(flow, intent->destination, intent->generation, BY_VERDICT))
		count(ADMITTED_DIRECT);
	if (intent->has_port)
		taken.update(flow, &socket);
}

static __always_inline void dismiss(struct tuple *flow, bool has_port)
{
	admitted.delete(flow);
	if (has_port)
		taken.delete(flow);
}

/* Its SYN has been seen in the pod: what it waits for, a full backlog, it would wait for on any way. */
static __always_inline bool has_arrived(const struct tuple *flow)
{
	struct tuple key = *flow;
	struct admission *admission = admitted.lookup(&key);
	return admission && admission->arrived;
}

/* A call within a pod. What is on the wire proves nothing: anybody may send a SYN that claims the pod's own
 * address. */
static __always_inline void admit_within(struct bpf_sock_ops *ctx, u64 netns, struct tuple *flow)
{
	u64 cgroup = current_cgroup(), *source = owners.lookup(&flow->source);
	bool proxy = own_cgroups.lookup(&cgroup);
	/* A process may show somebody else's address, if it may: then it is judged as he. */
	if (!proxy && !same(&flow->source, &flow->destination) && (!source || *source != netns))
		return;
	if (!admit(flow, 0, 0, proxy ? BY_PROXY : BY_SELF))
		return;
	count(proxy ? ADMITTED_PROXY : ADMITTED_SELF);
	watch(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* A socket's own address is its pod's, so a call to the same one stays within the pod, whether we know the
 * address or not. */
static __always_inline bool stays_within(u64 netns, const struct tuple *flow)
{
	return same(&flow->source, &flow->destination) && enrolled.lookup(&netns);
}

/* A SYN without an intent: the proxy's own, whose admission dies with it, or a process of the node. The proxy
 * calls a pod's application from within the pod, once it has judged who asks; of other calls it tells itself.
 */
static __always_inline void dialled(struct bpf_sock_ops *ctx, struct tuple *flow)
{
	u64 netns = netns_cookie(ctx);
	u64 *owner = owners.lookup(&flow->destination);
	if (owner ? *owner == netns : stays_within(netns, flow)) {
		/* Maybe from ports on which a call was captured that nobody has taken. */
		forget_caller(netns, flow);
		admit_within(ctx, netns, flow);
		return;
	}
	if (!owner)
		return;
	struct admission *known = admitted.lookup(flow);
	if (known && known->kind == BY_PROXY) {
		u64 proxy = 0;
		taken.update(flow, &proxy);
		watch(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
		return;
	}
	if (!may_reach_pods(netns))
		return;
	u64 destination = *owner, *generation = generations.lookup(&destination);
	if (generation && admit(flow, destination, *generation, BY_NODE)) {
		count(ADMITTED_NODE);
		watch(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
	}
}
