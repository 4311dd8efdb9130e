/* Whether there is a verdict on a call that counts. */

/* Verdicts are about calls from the address that the kernel gives a pod's calls: policy looks at it too. */
static __always_inline bool chose_source(struct bpf_sock_addr *ctx, const struct pod *pod, bool v4)
{
	struct bpf_sock *sock = ctx->sk;
	struct addr source = {};
	if (!sock)
		return true;
	if (v4)
		return sock->src_ip4 && sock->src_ip4 != pod->ip4.word[3];
	source.word[0] = sock->src_ip6[0];
	source.word[1] = sock->src_ip6[1];
	source.word[2] = sock->src_ip6[2];
	source.word[3] = sock->src_ip6[3];
	return (source.word[0] || source.word[3]) && !same(&source, &pod->ip6);
}

/* Fill in the verdict on this pair, if there is one that counts. */
static __always_inline bool judged(u64 source, const struct endpoint *destination, struct verdict *verdict)
{
	struct question question = {};
	question.source = source;
	question.destination = *destination;
	struct verdict *known = verdicts.lookup(&question);
	if (!known)
		return false;
	*verdict = *known;
	if (!lease_holds()) {
		count(LEASE_STALE);
		return false;
	}
	if (is_current(source, verdict->source_generation) && same(&verdict->to.ip, &destination->ip) &&
	    verdict->to.port == destination->port &&
	    (!verdict->destination || is_current(verdict->destination, verdict->destination_generation)))
		return true;
	count(VERDICT_STALE);
	return false;
}

/* The application chose a port that has a connection with this endpoint already: under another name of it, or
 * of the proxy's for an earlier call. Where names are translated behind the socket that is no obstacle. */
static __always_inline bool is_taken(struct bpf_sock_addr *ctx, const struct pod *pod,
				     const struct endpoint *wanted, const struct endpoint *asked)
{
	struct tuple flow = {};
	flow.source = is_v4(&wanted->ip) ? pod->ip4 : pod->ip6;
	flow.source_port = own_port(ctx);
	flow.destination = wanted->ip;
	flow.destination_port = wanted->port;
	u64 *holder = taken.lookup(&flow);
	if (!holder)
		return false;
	u64 socket = *holder;
	struct intent *other = intents.lookup(&socket);
	return !other || !is_endpoint(&other->asked, asked);
}
