/* Which endpoint of a VIP a call goes to, where the kernel knows them. */

/* Whether this client keeps an endpoint: then it is picked, unless only the proxy knows whether it still is
 * one.
 */
static __always_inline bool keeps(struct question *client, const struct vip *vip, struct intent *intent)
{
	u64 now = bpf_ktime_get_ns();
	struct affinity *known = affinities.lookup(client);
	if (!known || now - known->used_ns >= vip->affinity_s * 1000000000ULL)
		return false;
	if (known->table != vip->table) {
		count(VIP_AFFINITY_STALE);
		return true;
	}
	known->used_ns = now;
	intent->picked = known->endpoint;
	count(VIP_KEPT);
	return true;
}

/* The kernel picks for every connection, so that shares stay those of the balancer whatever verdicts there
 * are. */
static __always_inline void pick(struct intent *intent)
{
	struct vip *vip = vips.lookup(&intent->asked);
	if (!vip || !vip->slots)
		return;
	struct question client = {};
	client.source = intent->netns;
	client.destination = intent->asked;
	if (vip->affinity_s && keeps(&client, vip, intent))
		return;
	struct slot slot = {};
	slot.table = vip->table;
	slot.index = bpf_get_prandom_u32() % vip->slots;
	struct endpoint *endpoint = slots.lookup(&slot);
	count(endpoint ? VIP_PICKED : VIP_NO_SLOT);
	if (!endpoint)
		return;
	intent->picked = *endpoint;
	if (vip->affinity_s) {
		struct affinity affinity = {};
		affinity.endpoint = *endpoint;
		affinity.table = vip->table;
		affinity.used_ns = bpf_ktime_get_ns();
		affinities.update(&client, &affinity);
	}
}
