/* The application asks who its peer is: the one that it called. */

int getpeername4(struct bpf_sock_addr *ctx)
{
	u64 socket = socket_cookie(ctx);
	struct intent *intent = intents.lookup(&socket);
	if (intent && intent->kind != SERVED) {
		ctx->user_ip4 = intent->asked.ip.word[3];
		ctx->user_port = bpf_htons(intent->asked.port);
	}
	return 1;
}
