/* Why a hook returned. Never renumbered; each is a label of one metric. */
enum outcome {
	/* connect */
	CONNECT_STRANGER = 0,	     /* the namespace is not enrolled */
	CONNECT_OWN = 1,	     /* the proxy's own socket */
	CONNECT_NOT_TCP = 2,	     /* another protocol: left alone */
	CONNECT_LOOPBACK = 3,	     /* loopback, unspecified or multicast */
	CONNECT_OWN_ADDRESS = 4,     /* an address of the pod itself */
	CONNECT_CAPTURED = 5,	     /* sent to the proxy */
	CONNECT_DIRECT = 6,	     /* goes as it is, by a verdict */
	CONNECT_DENIED = 7,	     /* refused, by a verdict */
	CONNECT_NO_IPV4 = 8,	     /* refused: the pod has no IPv4 address to send it to */
	CONNECT_NO_IPV6 = 9,	     /* refused: the pod has no IPv6 address to send it to */
	CONNECT_NOT_REMEMBERED = 10, /* refused: no room for the original destination */
	LEASE_STALE = 11,	     /* a verdict did not count: the proxy has not renewed it */
	VERDICT_STALE = 12,	     /* a verdict did not count: the world has changed since */
	VIP_PICKED = 13,	     /* an endpoint was picked from a VIP's slots */
	VIP_NO_SLOT = 14,	     /* the slot was gone: the proxy picks */
	CONNECT_OUTSIDE = 15,	     /* leaves the mesh, as the application made it */
	OUTSIDE_NOT_STORED = 16,     /* no room: such a call goes unreported */
	OUTSIDE_LOST = 17,	     /* its report was lost: the buffer was full */
	VIP_KEPT = 18,		     /* the endpoint that this client had before */
	VIP_AFFINITY_STALE = 19,     /* its endpoints have changed since: the proxy picks */
	CONNECT_INTERFACE = 31,	     /* bound to an interface that the mesh does not use: left alone */
	/* sockops */
	CALLER_MOVED = 20,	   /* the original destination waits under the caller's address */
	CALLER_NOT_MOVED = 21,	   /* it does not: no room; the proxy will refuse */
	ADMITTED_DIRECT = 22,	   /* a direct flow's SYN may pass */
	ADMITTED_NODE = 23,	   /* a node process's SYN may pass */
	NODE_NOT_LISTED = 24,	   /* a node process that may not: captured like anybody */
	ADMISSION_NOT_STORED = 25, /* no room: the SYN will be captured */
	INTENT_MISMATCH = 26,	   /* dropped: another program sent it elsewhere */
	SERVED_NOT_STORED = 27,	   /* no room: the server's end of a direct flow goes uncounted */
	RECORD_LOST = 28,	   /* the ring buffer was full */
	ADMITTED_SELF = 30,	   /* a pod's call of itself may pass */
	ADMITTED_PROXY = 29,	   /* the proxy's call of an application may pass */
	/* sk_lookup */
	INBOUND_NOT_TCP = 40,
	INBOUND_LOOPBACK = 41,
	INBOUND_OWN = 42,	   /* the pod's call of itself */
	INBOUND_HBONE = 43,	   /* for port 15008 */
	INBOUND_ADMITTED = 44,	   /* an admitted 4-tuple */
	INBOUND_STALE = 45,	   /* an admitted 4-tuple of an older generation: captured */
	INBOUND_CAPTURED = 46,	   /* sent to the proxy */
	INBOUND_NO_LISTENER = 47,  /* refused: no proxy listens for this address */
	INBOUND_NOT_ASSIGNED = 48, /* refused: the listener could not take it */
	INBOUND_DNS = 49,	   /* dropped: the DNS port, from outside */
	OUTBOUND_ASSIGNED = 54,	   /* a captured call of the pod: to the proxy */
	OUTBOUND_STALE = 55,	   /* refused: the proxy stands still, its lease has lapsed */
	/* egress */
	CALL_HELD = 57,	    /* its SYN waits for the proxy */
	CALL_NOT_HELD = 58, /* no room to tell the proxy: it is accepted at once */
	/* forward */
	FORWARD_STRANGER = 70,	 /* the namespace is not enrolled */
	FORWARD_LEFT = 71,	 /* an annotation says that it is left alone */
	FORWARD_INNER = 72,	 /* between two things behind the pod */
	FORWARD_NOT_TCP = 73,	 /* another protocol: left alone */
	FORWARD_UNREADABLE = 74, /* dropped: a fragment, or behind extension headers */
	FORWARD_PENDING = 75,	 /* dropped: the pod is wanted in the mesh and not in it */
	FORWARD_ADMITTED = 76,	 /* inwards, by a verdict */
	FORWARD_ASKED = 77,	 /* inwards, dropped until the proxy has judged it */
	FORWARD_REFUSED = 78,	 /* outwards, dropped: a new connection */
	FORWARD_OLDER = 79,	 /* outwards, of a connection from before the pod was enrolled */
	FORWARD_NOT_TOLD = 80,	 /* the proxy was not told: the pod asks too often, or the buffer is full */
	/* a pod that is wanted in the mesh and not in it */
	CONNECT_PENDING = 81, /* its call is refused */
	INBOUND_PENDING = 82, /* a call to it is refused */
	/* sk_lookup, again */
	INBOUND_LAPSED = 83,	  /* refused: the proxy stands still, its lease has lapsed */
	INBOUND_LEFT = 84,	  /* the pod has just left the mesh */
	INBOUND_TURNED_AWAY = 87, /* refused: the address has had too many handshakes */
	/* a pod that starts: its namespace is not known yet */
	CONNECT_STARTING = 85, /* refused until it is enrolled */
	CONNECT_EARLY = 86, /* left alone: it is not known to be in the mesh, or was not enrolled in time */
	OUTCOMES = 96,
};
