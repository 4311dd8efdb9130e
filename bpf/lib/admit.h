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

/* A SYN without an intent: the proxy's own, whose admission dies with it, or a process of the node. The proxy
 * calls a pod's application from within the pod, once it has judged who asks; of other calls it tells itself.
 */
static __always_inline void dialled(struct bpf_sock_ops *ctx, struct tuple *flow)
{
	u64 netns = netns_cookie(ctx), cgroup = current_cgroup();
	u64 *owner = owners.lookup(&flow->destination);
	if (!owner)
		return;
	if (*owner == netns) {
		/* The pod calls itself, maybe from ports on which a call was captured that nobody has taken.
		 */
		forget_caller(netns, flow);
		if (own_cgroups.lookup(&cgroup) && admit(flow, 0, 0, BY_PROXY)) {
			count(ADMITTED_PROXY);
			watch(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
		}
		return;
	}
	struct admission *known = admitted.lookup(flow);
	if (known && known->kind == BY_PROXY) {
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
