/* Which processes are treated apart, by their cgroups. Twin: ztunnel/redirect/layout.py. */

enum start_rule { NAMED = 1, ALL_PODS = 2 };

/* Which processes may not call anybody before their pod is enrolled: those below the cgroup `kubepods`, at
 * depth `level`. A pod's cgroup is the next one, or the next but one where that is one of a quality of
 * service. */
struct start_rules {
	u32 rule; /* 0: none */
	u32 level;
	u64 kubepods;
	u64 burstable;
	u64 besteffort;
};
_Static_assert(sizeof(struct start_rules) == 32, "start_rules");

enum node_rule { SOME_CGROUPS = 1, ALL_OUTSIDE = 2 };

/* Which processes of the node's own namespace may reach pods: those of node_cgroups, or all but those below
 * the cgroup `except` at depth `level` (0: no exception). */
struct node_clients {
	u32 rule;
	u32 level;
	u64 except;
};
_Static_assert(sizeof(struct node_clients) == 16, "node_clients");
