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

/* Payload that the other end has acknowledged: the kernel counts a FIN as well, and the SYN of whoever opens.
 */
static __always_inline u64 sent_bytes(struct bpf_sock_ops *ctx, bool opener, bool ends)
{
	u64 sent = ctx->bytes_acked;
	if (ends) {
		u32 old = ctx->args[0];
		bool fin =
		    old == BPF_TCP_FIN_WAIT2 || old == BPF_TCP_TIME_WAIT ||
		    ((old == BPF_TCP_LAST_ACK || old == BPF_TCP_CLOSING) && ctx->snd_una == ctx->snd_nxt);
		sent -= fin && sent;
	}
	return sent - (opener && sent);
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
	record.sent_bytes = sent_bytes(ctx, intent->kind == DIRECT, event == ENDED);
	emit(&record);
}

/* What only this kernel's own description tells where to find: why a connection failed, and whether the
 * peer's FIN is among the bytes received. */
static __always_inline void look_inside(struct bpf_sock_ops *ctx, struct outside *call)
{
#if SK_ERR_AT && SK_FLAGS_AT
	void *sock = ctx->sk ? tcp_sock(ctx->sk) : 0;
	if (!sock)
		return;
	u64 flags;
	asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(call->error) : "r"(sock), "i"(SK_ERR_AT));
	asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(flags) : "r"(sock), "i"(SK_FLAGS_AT));
	if (flags >> SOCK_DONE & 1 && call->received_bytes)
		call->received_bytes--;
	call->exact = 1;
#endif
}

static __always_inline void report_outside(struct bpf_sock_ops *ctx, const struct outside *known, u8 event)
{
	struct outside call = *known;
	call.sent_bytes = sent_bytes(ctx, true, event == ENDED);
	call.received_bytes = ctx->bytes_received;
	if (event == ENDED)
		look_inside(ctx, &call);
	emit_outside(&call, event);
}
