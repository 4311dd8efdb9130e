/* A captured call's SYN is about to reach the proxy: it waits until the proxy sends it on by itself, once the
 * far end has answered. What the proxy sends passes, and all else than such a SYN. */

enum { HOLD = 0, SEND = 1 };

struct tcp_start {
	u16 source_port, destination_port;
	u32 sequence, acknowledged;
	u8 words, flags;
};

/* The length of the IP header; 0: not TCP, or none that is held. */
static __always_inline u32 leaving(struct __sk_buff *skb, struct tuple *flow)
{
	u32 word[10];
	if (skb->protocol == bpf_htons(ETH_IPV4)) {
		if (bpf_skb_load_bytes(skb, 0, word, 20) || ((u8 *)word)[9] != TCP)
			return 0;
		flow->source.word[2] = V4_MAPPED;
		flow->source.word[3] = word[3];
		flow->destination.word[2] = V4_MAPPED;
		flow->destination.word[3] = word[4];
		return (((u8 *)word)[0] & 15) * 4;
	}
	if (skb->protocol != bpf_htons(ETH_IPV6))
		return 0;
	if (bpf_skb_load_bytes(skb, 0, word, 40) || ((u8 *)word)[6] != TCP)
		return 0;
#pragma unroll
	for (int each = 0; each < 4; each++) {
		flow->source.word[each] = word[2 + each];
		flow->destination.word[each] = word[6 + each];
	}
	return 40;
}

/* With payload (TCP Fast Open) it does not wait: the application has gone on already. */
static __always_inline bool is_bare_syn(struct __sk_buff *skb, struct tuple *flow)
{
	struct tcp_start tcp = {};
	u32 start = leaving(skb, flow);
	if (!start || bpf_skb_load_bytes(skb, start, &tcp, 14))
		return false;
	flow->source_port = bpf_ntohs(tcp.source_port);
	flow->destination_port = bpf_ntohs(tcp.destination_port);
	return (tcp.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && start + (tcp.words >> 4) * 4 == skb->len;
}

/* Every packet that leaves a process of the machine passes here, and most go on after this look. What the
 * proxy sends on, by a raw socket, does too. */
static __always_inline bool is_connecting(struct __sk_buff *skb)
{
	struct bpf_sock *sock = skb->sk;
	return sock && sock->state == BPF_TCP_SYN_SENT;
}

/* It would leave the mesh unjudged, and in plaintext. */
static __always_inline bool goes_astray(struct __sk_buff *skb)
{
	u64 socket = socket_cookie(skb);
	struct intent *intent = intents.lookup(&socket);
	return intent && intent->kind == ASTRAY;
}

int egress(struct __sk_buff *skb)
{
	u32 bytes = skb->len;
	if (!is_connecting(skb))
		return SEND;
	if (goes_astray(skb))
		return HOLD;
	u64 since = holds_calls();
	if (!since || bytes < 40 || bytes > SYN_BYTES)
		return SEND;
	struct tuple flow = {};
	if (!is_bare_syn(skb, &flow))
		return SEND;
	u64 *owner = owners.lookup(&flow.destination);
	if (!owner)
		return SEND;
	struct held held = {};
	caller_of(*owner, &flow, &held.caller);
	struct destination *destination = callers.lookup(&held.caller);
	if (!destination)
		return SEND;
	/* Nobody will send it on: it goes where it is refused. */
	if (!lease_holds() || !proxy_listens(&flow))
		return SEND;
	if (destination->holder == since)
		return HOLD; /* sent again */
	held.asked = destination->asked;
	held.picked = destination->picked;
	held.event = CALLED;
	held.syn_bytes = bytes;
	if (bpf_skb_load_bytes(skb, 0, held.syn, bytes) || !tell(&held)) {
		count(CALL_NOT_HELD);
		return SEND;
	}
	destination->holder = since;
	count(CALL_HELD);
	return HOLD;
}
