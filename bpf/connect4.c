/* A pod's process calls an IPv4 address: to the proxy, straight to a pod of this node, or nowhere. */

int connect4(struct bpf_sock_addr *ctx)
{
	struct intent intent = {};
	struct endpoint target = {};
	intent.asked.ip.word[2] = V4_MAPPED;
	intent.asked.ip.word[3] = ctx->user_ip4;
	intent.asked.port = bpf_ntohs(ctx->user_port);
	enum step step = choose(ctx, &intent, &target);
	if (step == CALL) {
		ctx->user_ip4 = target.ip.word[3];
		ctx->user_port = bpf_htons(target.port);
	}
	return step != REFUSE;
}
