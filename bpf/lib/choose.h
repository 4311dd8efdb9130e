/* What becomes of a call that a pod makes: the part of connect4 and connect6 that knows no family. */

enum step {
	LEAVE,	/* as the application made it */
	CALL,	/* to `target` */
	REFUSE, /* with the errno that was set */
};

static __always_inline bool is_tcp(struct bpf_sock_addr *ctx)
{
	return ctx->protocol == TCP || ctx->protocol == MPTCP;
}

static __always_inline enum step leave(enum outcome why)
{
	count(why);
	return LEAVE;
}

static __always_inline enum step refuse(enum outcome why, int errno)
{
	count(why);
	set_errno(-errno);
	return REFUSE;
}

static __always_inline enum step deny(struct bpf_sock_addr *ctx, const struct intent *intent, u32 policy)
{
	struct record record = {};
	record.netns = intent->netns;
	record.socket = socket_cookie(ctx);
	record.asked = intent->asked;
	record.flow.destination = intent->picked.ip;
	record.flow.destination_port = intent->picked.port;
	record.policy = policy;
	record.event = DENIED;
	record.role = CLIENT;
	emit(&record);
	return refuse(CONNECT_DENIED, ECONNREFUSED);
}

static __always_inline enum step remember(struct bpf_sock_addr *ctx, struct intent *intent)
{
	u64 socket = socket_cookie(ctx);
	intent->since_ns = bpf_ktime_get_ns();
	if (intents.update(&socket, intent))
		return refuse(CONNECT_NOT_REMEMBERED, ECONNREFUSED);
	count(intent->kind == DIRECT ? CONNECT_DIRECT : CONNECT_CAPTURED);
	return CALL;
}

static __always_inline enum step capture(struct bpf_sock_addr *ctx, struct intent *intent,
					 struct endpoint *target)
{
	struct pod *pod = enrolled.lookup(&intent->netns);
	if (!pod)
		return refuse(CONNECT_NOT_REMEMBERED, ECONNREFUSED);
	target->ip = is_v4(&intent->asked.ip) ? pod->ip4 : pod->ip6;
	if (!target->ip.word[3] && !target->ip.word[0])
		return refuse(is_v4(&intent->asked.ip) ? CONNECT_NO_IPV4 : CONNECT_NO_IPV6, ENETUNREACH);
	target->port = capture_port(ctx, intent->netns, &target->ip, &intent->asked);
	intent->kind = CAPTURED;
	return remember(ctx, intent);
}

/* SO_BINDTODEVICE: a tunnel leaves by the interfaces that have the pod's own addresses, and by no other. */
static __always_inline bool chose_interface(struct bpf_sock_addr *ctx, u64 netns)
{
	struct bpf_sock *sock = ctx->sk;
	struct interface by = {};
	by.netns = netns;
	by.index = sock ? sock->bound_dev_if : 0;
	return by.index && !uplinks.lookup(&by);
}

/* Multipath TCP: where both ends speak it, an application does not notice that its subflow is destroyed. */
static __always_inline bool is_multipath(struct bpf_sock_addr *ctx)
{
#if IS_MPTCP_AT
	struct bpf_sock *sock = ctx->sk;
	void *tcp = sock ? tcp_sock(sock) : 0;
	if (!tcp)
		return false;
	u8 multipath;
	asm volatile("%0 = *(u8 *)(%1 + %2)" : "=r"(multipath) : "r"(tcp), "i"(IS_MPTCP_AT));
	return multipath;
#else
	return false;
#endif
}

/* `intent` comes with `asked` set and all else zero. */
static __always_inline enum step choose(struct bpf_sock_addr *ctx, struct intent *intent,
					struct endpoint *target)
{
	struct verdict verdict = {};
	u64 socket = socket_cookie(ctx), cgroup = current_cgroup();

	intent->netns = netns_cookie(ctx);
	struct pod *pod = enrolled.lookup(&intent->netns);
	if (!pod && is_tcp(ctx) && !is_local(&intent->asked.ip) && !own_cgroups.lookup(&cgroup) &&
	    starts(intent->netns))
		return refuse(CONNECT_STARTING, ECONNREFUSED);
	if (!pod || pod->flags & POD_LEAVING)
		return leave(CONNECT_STRANGER);
	if (own_cgroups.lookup(&cgroup))
		return leave(CONNECT_OWN);
	if (!is_tcp(ctx))
		return leave(CONNECT_NOT_TCP);
	/* A connect that failed early may have left one; this socket now goes elsewhere. */
	intents.delete(&socket);
	never_left(socket);
	if (is_local(&intent->asked.ip))
		return leave(CONNECT_LOOPBACK);
	u64 *owner = owners.lookup(&intent->asked.ip);
	if (owner && *owner == intent->netns)
		return leave(CONNECT_OWN_ADDRESS);
	if (pod->flags & POD_REFUSED)
		return refuse(CONNECT_PENDING, ECONNREFUSED);
	if (is_outside(&intent->asked.ip)) {
		leave_mesh(socket, intent, CONNECT_OUTSIDE);
		return LEAVE;
	}
	if (chose_interface(ctx, intent->netns)) {
		leave_mesh(socket, intent, CONNECT_INTERFACE);
		return LEAVE;
	}

	intent->has_port = own_port(ctx) != 0;
	pick(intent);
	struct endpoint wanted = intent->picked.port ? intent->picked : intent->asked;
	/* Only the proxy can take a call from one family to the other, and judge one from another address. */
	if (!judged(intent->netns, &wanted, &verdict) || is_v4(&wanted.ip) != is_v4(&intent->asked.ip) ||
	    chose_source(ctx, pod, is_v4(&intent->asked.ip)) || is_multipath(ctx) ||
	    (intent->has_port && is_taken(ctx, pod, &wanted, &intent->asked)))
		return capture(ctx, intent, target);
	intent->picked = wanted;
	if (verdict.kind != GO_DIRECT)
		return deny(ctx, intent, verdict.policy);
	intent->kind = DIRECT;
	intent->destination = verdict.destination;
	intent->generation = verdict.destination_generation;
	*target = wanted;
	return remember(ctx, intent);
}
