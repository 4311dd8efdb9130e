/* Pods that start: a process may run before its namespace is known here, and is told by its cgroup instead.
 */

static __always_inline u64 pod_cgroup(const struct start_rules *rules)
{
	u64 next = current_ancestor(rules->level + 1);
	return next == rules->burstable || next == rules->besteffort ? current_ancestor(rules->level + 2)
								     : next;
}

/* Whether a call from an unknown namespace has to be refused. */
static __always_inline bool starts(u64 netns)
{
	u32 only = 0;
	struct start_rules *rules = start_rules.lookup(&only);
	if (!rules || !rules->rule || current_ancestor(rules->level) != rules->kubepods)
		return false;
	if (node_rules.lookup(&netns))
		return false; /* a pod with its node's network */
	u64 pod = pod_cgroup(rules), now = bpf_ktime_get_ns();
	u64 *until = starting.lookup(&pod);
	if (until ? *until > now : rules->rule == ALL_PODS)
		return true;
	if (!until || *until) {
		count(CONNECT_EARLY);
		if (!early.lookup(&pod))
			early.update(&pod, &now);
	}
	return false;
}
