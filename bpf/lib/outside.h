/* Calls that leave the mesh: which ones do, and what is reported of them. */

/* Nothing is to be decided about this address. That counts only while the proxy lives and has told all
 * addresses about which something is: otherwise the call is captured, and refused where nobody listens. */
static __always_inline bool is_outside(struct addr *ip)
{
	u32 only = 0, *known = mesh_known.lookup(&only);
	return known && *known && !mesh_addresses.lookup(ip) && lease_holds();
}

static __always_inline void emit_outside(struct outside *call, u8 event)
{
	call->event = event;
	call->time_ns = bpf_ktime_get_ns();
	if (left.ringbuf_output(call, sizeof(*call), 0))
		count(OUTSIDE_LOST);
}

/* The application's own call from here on. What cannot be stored goes unreported, not unmade. */
static __always_inline void leave_mesh(u64 socket, const struct intent *intent, enum outcome why)
{
	struct outside call = {};
	call.netns = intent->netns;
	call.socket = socket;
	call.since_ns = bpf_ktime_get_ns();
	call.flow.destination = intent->asked.ip;
	call.flow.destination_port = intent->asked.port;
	if (outside.update(&socket, &call))
		count(OUTSIDE_NOT_STORED);
	count(why);
}

/* The socket is closed, or connects anew. A call of it that never came to its SYN has failed at once. */
static __always_inline void never_left(u64 socket)
{
	struct outside *known = outside.lookup(&socket);
	if (!known)
		return;
	if (!known->flow.source_port) {
		struct outside call = *known;
		emit_outside(&call, ENDED);
	}
	outside.delete(&socket);
}
