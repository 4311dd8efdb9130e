/* A socket is released that never sent a SYN: what its connect left behind goes. The others still have a
 * close to report, for which sockops needs their intent. */

int sock_release(struct bpf_sock *sock)
{
	if (sock->state == BPF_TCP_CLOSE) {
		u64 socket = socket_cookie(sock);
		intents.delete(&socket);
		never_left(socket);
	}
	return 1;
}
