/* The application asks who its peer is: the one that it called. */

int getpeername6(struct bpf_sock_addr *ctx)
{
	u64 socket = socket_cookie(ctx);
	struct intent *intent = intents.lookup(&socket);
	if (intent && intent->kind != SERVED) {
		ctx->user_ip6[0] = intent->asked.ip.word[0];
		ctx->user_ip6[1] = intent->asked.ip.word[1];
		ctx->user_ip6[2] = intent->asked.ip.word[2];
		ctx->user_ip6[3] = intent->asked.ip.word[3];
		ctx->user_port = bpf_htons(intent->asked.port);
	}
	return 1;
}
