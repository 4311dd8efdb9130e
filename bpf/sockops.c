/* Connections begin, open and end: original destinations move to where the proxy looks, 4-tuples are admitted
 * and die with their connection. Of a direct flow the client's end reports the opening, each its own end. */

/* The local port is known and the SYN has not left: where the original destination finds the proxy, or the
 * 4-tuple its admission. */
static __always_inline void calls(struct bpf_sock_ops *ctx)
{
	u64 socket = socket_cookie(ctx);
	struct tuple flow = {};
	opening(ctx, &flow);
	struct intent *intent = intents.lookup(&socket);
	if (!intent) {
		struct outside *call = outside.lookup(&socket);
		if (call && !same(&flow.source, &flow.destination)) {
			call->flow = flow;
			watch(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
			return;
		}
		if (call)
			outside.delete(&socket);
		dialled(ctx, &flow);
		return;
	}
	intent->flow = flow;
	watch(ctx, BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTO_CB_FLAG);
	if (is_astray(intent, &flow)) {
		intent->kind = ASTRAY;
		count(INTENT_MISMATCH);
	} else if (intent->kind == CAPTURED) {
		remember_caller(intent, &flow);
	} else if (intent->kind == DIRECT) {
		admit_direct(intent, &flow, socket);
	}
}

static __always_inline void opened(struct bpf_sock_ops *ctx)
{
	u64 socket = socket_cookie(ctx);
	struct outside *call = outside.lookup(&socket);
	if (call) {
		call->established = 1;
		report_outside(ctx, call, OPENED);
		return;
	}
	struct intent *intent = intents.lookup(&socket);
	if (!intent || intent->kind == SERVED)
		return;
	intent->established = 1;
	if (intent->kind == DIRECT)
		report(ctx, intent, OPENED);
}

static __always_inline void accepted(struct bpf_sock_ops *ctx)
{
	u64 socket = socket_cookie(ctx);
	struct intent intent = {};
	intent.netns = netns_cookie(ctx);
	if (!enrolled.lookup(&intent.netns))
		return;
	addresses(ctx, &intent.flow.destination, &intent.flow.source);
	intent.flow.destination_port = ctx->local_port;
	intent.flow.source_port = bpf_ntohl(ctx->remote_port);
	struct tuple flow = intent.flow;
	struct admission *admission = admitted.lookup(&flow);
	if (!admission)
		return;
	/* It has done its work: no second SYN passes by it, however long the opener's end outlives this one.
	 */
	if (admission->kind == BY_PROXY || admission->kind == BY_SELF)
		admitted.delete(&flow);
	if (admission->kind != BY_VERDICT)
		return;
	intent.asked.ip = flow.destination;
	intent.asked.port = flow.destination_port;
	intent.kind = SERVED;
	intent.established = 1;
	intent.since_ns = bpf_ktime_get_ns();
	if (intents.update(&socket, &intent)) {
		count(SERVED_NOT_STORED);
		return;
	}
	watch(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
}

static __always_inline void closed(struct bpf_sock_ops *ctx)
{
	u64 socket = socket_cookie(ctx);
	struct outside *call = outside.lookup(&socket);
	if (call) {
		report_outside(ctx, call, ENDED);
		outside.delete(&socket);
		return;
	}
	struct intent *intent = intents.lookup(&socket);
	if (!intent) {
		struct tuple flow = {};
		opening(ctx, &flow);
		dismiss(&flow, true);
		return;
	}
	struct tuple flow = intent->flow;
	if (intent->kind == DIRECT)
		dismiss(&flow, intent->has_port);
	if (intent->kind == DIRECT || intent->kind == SERVED) {
		report(ctx, intent, ENDED);
	} else if (intent->kind == CAPTURED) {
		if (!intent->established)
			gave_up(intent->netns, &flow);
		else
			forget_told(intent->netns, &flow);
	}
	intents.delete(&socket);
}

static __always_inline void unanswered(struct bpf_sock_ops *ctx)
{
	u64 socket = socket_cookie(ctx);
	struct intent *intent = intents.lookup(&socket);
	if (intent && intent->kind == DIRECT && !intent->established && !has_arrived(&intent->flow))
		report(ctx, intent, UNANSWERED);
}

int sockops(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		calls(ctx);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		opened(ctx);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		accepted(ctx);
		break;
	case BPF_SOCK_OPS_RTO_CB:
		unanswered(ctx);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] == BPF_TCP_CLOSE)
			closed(ctx);
		else if (ctx->args[1] == BPF_TCP_FIN_WAIT1)
			ends(socket_cookie(ctx));
		break;
	}
	return 1;
}
