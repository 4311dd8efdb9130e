/* A connection as sockops sees it, and what is reported of it. */

static __always_inline void addresses(struct bpf_sock_ops *ctx, struct addr *local, struct addr *remote)
{
	if (ctx->family == AF_INET) {
		remote->word[2] = V4_MAPPED;
		remote->word[3] = LOAD32(ctx, 24);
		local->word[2] = V4_MAPPED;
		local->word[3] = LOAD32(ctx, 28);
	} else {
		remote->word[0] = LOAD32(ctx, 32);
		remote->word[1] = LOAD32(ctx, 36);
		remote->word[2] = LOAD32(ctx, 40);
		remote->word[3] = LOAD32(ctx, 44);
		local->word[0] = LOAD32(ctx, 48);
		local->word[1] = LOAD32(ctx, 52);
		local->word[2] = LOAD32(ctx, 56);
		local->word[3] = LOAD32(ctx, 60);
	}
}

/* The connection, seen by the end that opens it. */
static __always_inline void opening(struct bpf_sock_ops *ctx, struct tuple *flow)
{
	addresses(ctx, &flow->source, &flow->destination);
	flow->source_port = ctx->local_port;
	flow->destination_port = bpf_ntohl(ctx->remote_port);
}

static __always_inline void watch(struct bpf_sock_ops *ctx, int flags)
{
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | flags);
}

static __always_inline void report(struct bpf_sock_ops *ctx, const struct intent *intent, u8 event)
{
	struct record record = {};
	record.netns = intent->netns;
	record.socket = socket_cookie(ctx);
	record.flow = intent->flow;
	record.asked = intent->asked;
	record.event = event;
	record.role = intent->kind == SERVED ? SERVER : CLIENT;
	record.established = intent->established;
	record.duration_ns = bpf_ktime_get_ns() - intent->since_ns;
	record.srtt_us = ctx->srtt_us >> 3; /* the kernel keeps eighths */
	record.retransmits = ctx->total_retrans;
	record.sent_bytes = ctx->bytes_acked;
	if (event == ENDED) {
		u32 old = ctx->args[0];
		bool fin =
		    old == BPF_TCP_FIN_WAIT2 || old == BPF_TCP_TIME_WAIT ||
		    ((old == BPF_TCP_LAST_ACK || old == BPF_TCP_CLOSING) && ctx->snd_una == ctx->snd_nxt);
		record.sent_bytes -= fin && record.sent_bytes;
	}
	if (intent->kind == DIRECT && record.sent_bytes)
		record.sent_bytes--; /* the opener's SYN counts as acknowledged */
	emit(&record);
}
