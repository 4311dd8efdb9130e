/* Calls that wait: the application's connect() returns when the far end has answered, and tells what it said.
 */

static __always_inline bool tell(struct held *held)
{
	return !waiting.ringbuf_output(held, sizeof(*held), 0);
}

static __always_inline u64 holds_calls(void)
{
	u32 only = 0;
	u64 *since = holder.lookup(&only);
	return since ? *since : 0;
}

/* The application waits no longer, or was refused: whoever holds its call drops it. */
static __always_inline void gave_up(u64 netns, const struct tuple *flow)
{
	struct held held = {};
	caller_of(netns, flow, &held.caller);
	struct destination *destination = callers.lookup(&held.caller);
	if (!destination)
		return;
	held.event = GAVE_UP;
	if (destination->holder && !tell(&held))
		count(RECORD_LOST);
	callers.delete(&held.caller);
}

/* The connection is over. Its entry is not needed where the proxy was told of the call: it knows the
 * connection by that. Any other the proxy takes when it accepts, maybe after the application has closed. */
static __always_inline void forget_told(u64 netns, const struct tuple *flow)
{
	struct caller caller = {};
	caller_of(netns, flow, &caller);
	struct destination *destination = callers.lookup(&caller);
	if (destination && destination->holder)
		callers.delete(&caller);
}

static __always_inline bool proxy_listens(const struct tuple *flow)
{
	struct listener key = {};
	key.ip = flow->destination;
	key.kind = OUTBOUND;
	void *listener = listeners.lookup(&key);
	if (!listener)
		return false;
	release(listener);
	return true;
}
