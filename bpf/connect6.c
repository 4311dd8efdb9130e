/* A pod's process calls an IPv6 address, or an IPv4 one by its mapped form, which runs only this hook. */

int connect6(struct bpf_sock_addr *ctx)
{
	struct intent intent = {};
	struct endpoint target = {};
	intent.asked.ip.word[0] = LOAD32(ctx, 8);
	intent.asked.ip.word[1] = LOAD32(ctx, 12);
	intent.asked.ip.word[2] = LOAD32(ctx, 16);
	intent.asked.ip.word[3] = LOAD32(ctx, 20);
	intent.asked.port = bpf_ntohs(ctx->user_port);
	enum step step = choose(ctx, &intent, &target);
	if (step == CALL) {
		ctx->user_ip6[0] = target.ip.word[0];
		ctx->user_ip6[1] = target.ip.word[1];
		ctx->user_ip6[2] = target.ip.word[2];
		ctx->user_ip6[3] = target.ip.word[3];
		ctx->user_port = bpf_htons(target.port);
	}
	return step != REFUSE;
}
