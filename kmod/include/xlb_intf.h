/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the kernel module, the BPF policy and xlbctl say to each other.
 *
 * This file is the one definition of every structure that crosses a boundary:
 * the C shim and the BPF programs include it, the module's Rust and xlbctl get
 * it through bindgen.  Widths are fixed, padding is explicit, and the sizes are
 * asserted, because the three sides are built at different times.
 *
 * A change to anything here raises XLB_ABI, and `versions` beside this file records it (a test of
 * xlbctl compares them).  The module takes policies and xlbctl's from XLB_ABI_OLDEST up to its own.
 * So that this range can be wide, structures only grow, at their ends, and say how long they are; numbers of
 * enums are never used again; and counters go by their names.  What breaks that raises XLB_ABI_OLDEST too.
 *
 *   direction            what                           context
 *   module -> BPF        struct xlb_policy (struct_ops)  process, in RCU
 *   BPF -> module        bpf_xlb_accept()                cgroup/connect4|6, socket locked
 *   BPF -> module        bpf_xlb_{hash,find,equal,...}   inside route() and pick()
 *   xlbctl -> module     bpf_xlb_ctl()                   BPF_PROG_TYPE_SYSCALL
 */
#ifndef XLB_INTF_H
#define XLB_INTF_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#define XLB_ABI 11
#define XLB_ABI_OLDEST 6

/* --- Requests -------------------------------------------------------------- */

/* RFC 9110, section 9; XLB_METHOD_OTHER is any other token. */
enum xlb_method {
	XLB_METHOD_OTHER = 0,
	XLB_METHOD_GET = 1,
	XLB_METHOD_HEAD = 2,
	XLB_METHOD_POST = 3,
	XLB_METHOD_PUT = 4,
	XLB_METHOD_DELETE = 5,
	XLB_METHOD_CONNECT = 6,
	XLB_METHOD_OPTIONS = 7,
	XLB_METHOD_TRACE = 8,
	XLB_METHOD_PATCH = 9,
};

/*
 * A field of the current request, as the kfuncs take it.  Fields hold decoded,
 * normalised bytes: HOST without port and in lower case, PATH normalised and
 * without query.  bpf_xlb_named() returns XLB_FIELD_NAMED + n.
 */
enum xlb_field {
	XLB_FIELD_METHOD = 0,
	XLB_FIELD_HOST = 1,
	XLB_FIELD_PATH = 2,
	XLB_FIELD_QUERY = 3,
	/* PATH with ASCII letters in lower case; not for bpf_xlb_find(), bpf_xlb_contains() and bpf_xlb_search(). */
	XLB_FIELD_PATH_LOWER = 4,
	XLB_FIELD_NAMED = 64,
};

/* Kinds of named parts of a request, as a set for bpf_xlb_fields() and one for bpf_xlb_named(). */
enum xlb_named {
	XLB_NAMED_HEADER = 1, /* header fields; repeated ones are one value joined with "," */
	XLB_NAMED_QUERY = 2, /* query parameters as written; the first of a name */
	XLB_NAMED_COOKIE = 4, /* cookies of the joined Cookie fields; the first of a name */
};

/*
 * Strings that are searched for together, in a field or in several: automata as of Aho and Corasick, each
 * with a root of its own, in the values of an array map, one after the other.
 */
struct xlb_search_state {
	__u32 base; /* what it does with a byte is the state at base ^ byte.. */
	__u32 check; /* ..if this is that base; if not, what it does is.. */
	__u32 fail; /* ..what this state does; at last the root, which has all 256 from its base on */
	__u32 needle; /* the longest needle that ends here; 0: none does */
};

struct xlb_needle {
	/* The tables, each from the beginning of a value of the map. */
	__u32 state_page; /* struct xlb_search_state */
	__u32 state_count;
	__u32 shorter_page; /* __u32, by needle: the next shorter one that ends where it does, or 0 */
	__u32 shorter_count;
	__u32 root; /* the state that the search begins in */
	__u32 searched; /* the bit that says that this search was made: no needle's */
	__u32 needle; /* its number, and its bit, in what the request has of bpf_xlb_needles() */
	__u32 reserved0;
};

#define XLB_MAX_NEEDLES 4194304

/*
 * Regular expressions that are matched together, each with the whole of a field: a deterministic automaton in the
 * values of an array map.  Its states are rows of `stride` entries, the first for bytes of class 0 and so on, and the last for
 * the end: bytes lead to a row, and row 0 is left by nothing; the end leads to a place in the table of what has matched.
 */
struct xlb_regex {
	/* The tables, each from the beginning of a value of the map. */
	__u32 class_page; /* __u8: the class of each byte */
	__u32 state_page; /* __u16 */
	__u32 state_count; /* entries, of all rows */
	__u16 stride;
	__u16 start; /* row */
	__u32 match_page; /* __u32: how many have matched, and their bits; at place 0: none */
	__u32 match_count;
	__u32 searched; /* as in struct xlb_needle */
	__u32 needle; /* the bit of this one */
};
_Static_assert(sizeof(struct xlb_regex) == 32, "a power of two, as records of a blob are");

/*
 * An exchange, one request and its response, as the module knows it.  Programs hand it on to the kfuncs; what is in it is
 * the module's alone.
 */
struct xlb_exchange {
	__u64 reserved0;
};

/* The request that route() and pick() decide on.  Read-only to BPF. */
struct xlb_request {
	__u32 size; /* of this structure, as the module knows it */
	__u32 service; /* as given to bpf_xlb_accept() */
	__u64 cgroup_id; /* cgroup v2 id of the socket */
	__u64 now_ns; /* CLOCK_MONOTONIC at the end of the head */
	__u32 reserved0;
	__u32 attempt; /* 0, or n for the n-th pick() of this request */
	__u32 method; /* enum xlb_method */
	__u32 head_bytes;
	__u32 host_bytes; /* length of XLB_FIELD_HOST */
	__u32 path_bytes; /* length of XLB_FIELD_PATH */
	__u32 path_segments; /* "/" has 0, "/a" and "/a/" have 1 */
	__u16 http_version; /* 0x0100 or 0x0101 */
	__u16 flags; /* XLB_REQ_* */
	__u64 upgrade; /* FNV-1a of the protocol asked for, in lower case; 0: none */
	__u64 source; /* a hash of the client's network namespace and address */
};
_Static_assert(sizeof(struct xlb_request) == 72,
	       "read by BPF programs of an ABI from the oldest on");

#define XLB_REQ_HAS_BODY 0x0001

/* --- Decisions --------------------------------------------------------------- */

/* Limits of one pool: all i-socks of one (identity, cluster, endpoint). */
struct xlb_pool_limits {
	__u32 min_idle;
	__u32 max; /* connections; 0 = no limit */
	__u32 max_pending; /* requests that wait for a connection */
	__u32 idle_timeout_ms; /* 0 = never */
	__u32 connect_timeout_ms;
	__u32 max_requests; /* per connection; 0 = no limit */
	__u32 pending_timeout_ms; /* a request's wait for a connection; 0 = for ever */
	__u32 cluster; /* number of the cluster: limits belong to (pool, cluster) */
};
_Static_assert(sizeof(struct xlb_pool_limits) == 32, "embedded in struct xlb_decision");

/*
 * What the policy decided for one request.  route() fills all of it, pick() the
 * second part anew; the module keeps it until done() and shows it in
 * `xlbctl get sockets`.  The module never interprets `route`, `cluster`,
 * `endpoint` and `cookie`.
 */
struct xlb_decision {
	__u32 size; /* of this structure, as the module knows it */
	/* route() */
	__u32 route;
	__u32 cluster;
	/* route() and pick() */
	__u32 endpoint; /* the policy's own number of the endpoint */
	__u64 cookie[2]; /* the policy's own, from route() to pick() and done() */
	__u8 addr[16]; /* network order; IPv4 as ::ffff:a.b.c.d */
	__u16 port; /* host order */
	__u16 flags; /* XLB_DECISION_*; route() sets them */
	__u32 draw; /* the policy's own; 0 before the first decision on a request */
	struct xlb_pool_limits pool;
	__u64 hash; /* the policy's own */
	__u64 affinity; /* for XLB_ACTION_COOKIE; 0: the client has its cookie, or needs none */
};
_Static_assert(sizeof(struct xlb_decision) == 104,
	       "written by BPF programs of an ABI from the oldest on");

/* The path is forwarded in its normal form; without this as it came, or refused. */
#define XLB_DECISION_FORWARD_NORMAL 0x0001
/* The request may become a tunnel for the protocol that it asks for. */
#define XLB_DECISION_UPGRADE 0x0002

/*
 * What is done with a request beside sending it to an endpoint: a list in a map, which bpf_xlb_act()
 * hands over.  The module keeps the map until it has done what the list says.  A kind that it does
 * not know is passed over.
 */
enum xlb_action_kind {
	/* XLB answers: `status`, and the text as its body.  route() returns XLB_REASON_RESPOND. */
	XLB_ACTION_RESPOND = 1,
	/* XLB answers: `status`, and the request's own URL but for what the next five say. */
	XLB_ACTION_REDIRECT = 2,
	XLB_ACTION_SCHEME = 3,
	/* Without a redirect the next three are of the request as the endpoint gets it; the host with its port then. */
	XLB_ACTION_HOST = 4,
	XLB_ACTION_PATH = 5, /* in a redirect with a query, or without */
	XLB_ACTION_PATH_PREFIX = 6, /* instead of the first `matched` bytes of XLB_FIELD_PATH */
	XLB_ACTION_PORT = 7, /* in decimal */
	/*
	 * Fields of the request, and of the response or what XLB answers instead: the text is the name.  They are
	 * done in the order of the list; none of those that frame a message or are for one connection may be among them.
	 */
	XLB_ACTION_REQUEST_SET = 8,
	XLB_ACTION_REQUEST_ADD = 9,
	XLB_ACTION_REQUEST_REMOVE = 10,
	XLB_ACTION_RESPONSE_SET = 11,
	XLB_ACTION_RESPONSE_ADD = 12,
	XLB_ACTION_RESPONSE_REMOVE = 13,
	/*
	 * The client gets a cookie of that name with the response: its value is the decision's `affinity` in 16
	 * hexadecimal digits, if that is not 0; `value` is what follows, its attributes (RFC 6265, section 4.1).
	 */
	XLB_ACTION_COOKIE = 14,
};

struct xlb_action {
	__u16 kind; /* enum xlb_action_kind */
	__u16 status;
	/* A text in the map, in one value. */
	__u32 text_page;
	__u16 text_offset;
	__u16 text_bytes;
	/* One more: the value of a field. */
	__u32 value_page;
	__u16 value_offset;
	__u16 value_bytes;
	__u32 matched;
	__u32 reserved0[2];
};
_Static_assert(sizeof(struct xlb_action) == 32, "a power of two, as records of a blob are");

#define XLB_MAX_ACTIONS 256 /* of one request */

/* How a request ended; done() gets it exactly once for each endpoint that was given. */
struct xlb_result {
	__u32 size; /* of this structure, as the module knows it */
	__u32 status; /* of the final response; 0 if there was none */
	__u64 request_bytes; /* head and body, towards the endpoint */
	__u64 response_bytes; /* head and body, from the endpoint */
	__u64 latency_ns; /* end of request head to end of response, or to the failure */
	__u32 reason; /* enum xlb_reason; XLB_REASON_OK when the endpoint answered */
	__u32 reserved0;
};
_Static_assert(sizeof(struct xlb_result) == 40,
	       "read by BPF programs of an ABI from the oldest on");

/*
 * Why XLB itself answered, or ended, an exchange.  NAME is the counter, the value of
 * `x-xlb-reason` and the word in `xlbctl stats`: one name for all three.
 * STATUS is what the client gets (0: no reply is made).
 */
#define XLB_REASONS(X)                                                                           \
	X(OK, ok, 0, "the endpoint answered")                                                    \
	X(BAD_REQUEST, bad_request, 400, "malformed request; the connection is closed")          \
	X(NO_ROUTE, no_route, 404, "no virtual host or route matched")                           \
	X(BODY_TOO_LARGE, body_too_large, 413, "request body above a configured limit")          \
	X(HEAD_TOO_LARGE, head_too_large, 431, "request head above its limit")                   \
	X(UNSUPPORTED, unsupported, 501, "transfer coding or method that XLB does not relay")    \
	X(UPSTREAM_RESET, upstream_reset, 502, "the endpoint closed before the response ended")  \
	X(UPSTREAM_PROTOCOL, upstream_protocol, 502, "malformed response from the endpoint")     \
	X(NO_ENDPOINT, no_endpoint, 503, "the cluster has no endpoint to pick")                  \
	X(CONNECT_FAILED, connect_failed, 503, "no connection to the endpoint could be made")    \
	X(POOL_OVERFLOW, pool_overflow, 503, "max connections and max_pending requests reached") \
	X(TIMEOUT, timeout, 504, "no connection or response in time")                            \
	X(VERSION, version, 505, "HTTP version other than 1.0 and 1.1")                          \
	X(NO_POLICY, no_policy, 503, "no BPF policy is attached")                                \
	X(CLIENT_GONE, client_gone, 0, "the client closed before the response was whole")        \
	X(RETRIED, retried, 0, "the endpoint's connection was dead; the request is sent again")  \
	X(POOL_TIMEOUT, pool_timeout, 503, "no connection of a full pool came free in time")     \
	X(NO_MEMORY, no_memory, 503, "no memory for the request or its connection")              \
	X(NOT_PERMITTED, not_permitted, 503, "a rule of the host forbids the connection")        \
	X(RESPOND, respond, 0, "the route says what the client gets")

enum xlb_reason {
#define X(upper, lower, status, text) XLB_REASON_##upper,
	XLB_REASONS(X)
#undef X
	/* clang-format off */
	XLB_REASON_COUNT,
	/* clang-format on */
};

/* --- The policy (struct_ops) ----------------------------------------------- */

/*
 * struct xlb_policy, the struct_ops type, is defined in shim/policy.c for the kernel and
 * comes to BPF through the module's BTF:
 *
 *	struct xlb_policy {
 *		int (*route)(struct xlb_exchange *ex, struct xlb_request *req,
 *			     struct xlb_decision *dec);
 *		int (*pick)(struct xlb_exchange *ex, struct xlb_request *req,
 *			    struct xlb_decision *dec);
 *		void (*done)(struct xlb_exchange *ex, struct xlb_request *req,
 *			     struct xlb_decision *dec, struct xlb_result *res);
 *		__u32 abi;
 *		char name[16];
 *	};
 *
 * route() and pick() return 0, or an enum xlb_reason that becomes the reply.  Except
 * XLB_REASON_RETRIED, which says that the configuration has changed since the decision
 * was begun: the module then calls route() again with the same request and decision, a
 * few times at most, and answers with XLB_REASON_NO_ENDPOINT after that.
 * All run in process context inside an RCU read-side section; *dec is writable,
 * *req and *res are not.
 *
 * kfuncs for cgroup/connect4|6; returns 0, or -errno when the socket must stay
 * plain TCP (a ULP, sk_user_data or a foreign sk_prot is there already):
 *
 *	int bpf_xlb_accept(struct bpf_sock_addr_kern *ctx, __u32 service);
 *
 * kfuncs for route() and pick(); offsets are in bytes of the field; `ex` must
 * be the argument the program was called with:
 *
 *	FNV-1a (64 bit) of field[from, to); 0 when out of range
 *	__u64 bpf_xlb_hash(struct xlb_exchange *ex, __u32 field, __u32 from, __u32 to);
 *	offset of the first `byte` at or after `from`; -ENOENT
 *	int bpf_xlb_find(struct xlb_exchange *ex, __u32 field, __u32 from, __u32 byte);
 *	the length of the field; -ENOENT when absent
 *	int bpf_xlb_len(struct xlb_exchange *ex, __u32 field);
 *	1 when field[from, from + len) equals buf[off, off + len), else 0
 *	int bpf_xlb_equal(struct xlb_exchange *ex, __u64 field_from,
 *			  const void *buf, __u32 buf__sz, __u64 off_len);
 *	1 when buf[off, off + len) is somewhere in field[from, end), else 0; linear in both
 *	int bpf_xlb_contains(struct xlb_exchange *ex, __u64 field_from,
 *			     const void *buf, __u32 buf__sz, __u64 off_len);
 *	1 when the field is a decimal number and in the range that buf[off, off + len) is: two __s64,
 *	the first in it, the second not; else 0.  A sign and white space around it are let pass
 *	int bpf_xlb_in_range(struct xlb_exchange *ex, __u32 field, const void *buf, __u32 buf__sz,
 *			     __u64 off_len);
 *	0 when there is a table of the named parts of all `kinds`; -EAGAIN when route() must
 *	return XLB_REASON_RETRIED first: it is there when it is called again
 *	int bpf_xlb_fields(struct xlb_exchange *ex, __u32 kinds);
 *	0 when a query parameter or cookie of that name will be found together with the others
 *	that were named so, in one search; -EAGAIN as bpf_xlb_fields()
 *	int bpf_xlb_want(struct xlb_exchange *ex, __u32 kind, const void *buf, __u32 buf__sz,
 *			 __u64 off_len);
 *	the field number of the part of a kind that is named buf[off, off + len); headers
 *	are compared without case; -ENOENT when absent.  Headers need bpf_xlb_fields() first;
 *	without it and bpf_xlb_want() each search for another part goes over all of them, and makes the
 *	number that the one before has returned void
 *	int bpf_xlb_named(struct xlb_exchange *ex, __u32 kind, const void *buf, __u32 buf__sz,
 *			  __u64 off_len);
 *
 *	0 when there is room for what bpf_xlb_search() finds: bits 0 to count - 1; -EAGAIN as
 *	bpf_xlb_fields(); -EINVAL when that is more than XLB_MAX_NEEDLES
 *	int bpf_xlb_needles(struct xlb_exchange *ex, __u32 count);
 *	whether a needle is somewhere in the field: 1 or 0.  The first of those that are searched for
 *	together is asked for in one pass over the field, linear in it, and the others have their
 *	answers then.  -ENOENT when there is no such field, -EINVAL without room for its bits, or
 *	when what it says is not in the map, an array
 *	int bpf_xlb_search(struct xlb_exchange *ex, __u32 field, void *pages__map,
 *			   const struct xlb_needle *needle);
 *	whether the regular expression matches all of the field: 1 or 0.  As bpf_xlb_search(), the first of
 *	those that are matched together is asked for in one pass over the field
 *	int bpf_xlb_match(struct xlb_exchange *ex, __u32 field, void *pages__map,
 *			  const struct xlb_regex *regex);
 *	what is to be done with the request, in place of what was said before: records first to
 *	first + count - 1, of `bytes` each, from the beginning of the values of the map, an array.
 *	0; -EAGAIN when the map is being taken away: the configuration has changed; -EINVAL when
 *	they are not in it, or are too many or too short
 *	int bpf_xlb_act(struct xlb_exchange *ex, void *pages__map, __u32 first, __u32 count,
 *			__u32 bytes);
 *
 * off_len is XLB_OFF_LEN(off, len) and field_from is XLB_FIELD_FROM(field, from):
 * kfuncs take at most five registers.
 */
#define XLB_OFF_LEN(off, len) (((__u64)(off) << 32) | (__u32)(len))
#define XLB_FIELD_FROM(field, from) (((__u64)(field) << 32) | (__u32)(from))

/* --- Control (BPF_PROG_TYPE_SYSCALL) ------------------------------------------ */

/*
 *	int bpf_xlb_ctl(struct xlb_ctl *ctl, __u32 ctl__sz, void *buf, __u32 buf__sz);
 *
 * Returns 0 or -errno.  `cursor` starts at 0 and is carried from call to call
 * until `more` is 0; `count` is the number of records written to buf.  May sleep.
 * Wants CAP_NET_ADMIN and CAP_BPF in the initial user namespace.  `ctl__sz` says how long the caller knows
 * the structure to be: what it lacks is 0 to the module, what the module lacks is left as it was.
 */
struct xlb_ctl {
	__u32 abi; /* in: XLB_ABI; out: the module's.  -EPROTO when the module does not take it */
	__u32 op; /* in: enum xlb_ctl_op */
	__u64 cursor; /* in, out */
	__u32 count; /* out */
	__u32 more; /* out */
	__u8 addr[16]; /* in: CLOSE_IDLE: endpoint, as in struct xlb_decision */
	__u16 port; /* in: host order */
	__u16 reserved0;
	__u32 service; /* in: END_SOCKETS: only of this service, or XLB_ANY */
	__u32 record_bytes; /* out: of each record; a longer one than is known begins with it */
	__u32 abi_oldest; /* out: the module's XLB_ABI_OLDEST */
};
_Static_assert(sizeof(struct xlb_ctl) == 56, "passed by xlbctl of an ABI from the oldest on");

#define XLB_ANY 0xffffffffu

enum xlb_ctl_op {
	XLB_CTL_INFO = 0, /* one struct xlb_info */
	XLB_CTL_COUNTS = 6, /* struct xlb_count, one for each counter, gauge and reason */
	XLB_CTL_SOCKETS =
		1, /* struct xlb_socket_info, one for each socket that keeps the module in place */
	XLB_CTL_POOLS = 2, /* struct xlb_pool_info, one per pool */
	XLB_CTL_CLOSE_IDLE = 3, /* close an endpoint's idle i-socks; running ones end */
	XLB_CTL_END_SOCKETS = 4, /* a running exchange ends with EOF, the next write gets EPIPE */
	XLB_CTL_RELEASE = 5, /* let go of those that have ended; `count`: of how many */
};

/*
 * Counters of the module; each is a __u64 since insmod, summed over CPUs.
 * Gauges are live numbers.  Their names are what xlbctl knows them by.
 */
#define XLB_COUNTERS(X)                                                                   \
	X(PSOCKS, psocks, gauge, "client sockets that XLB serves now")                    \
	X(PSOCK_BYTES, psock_bytes, gauge, "module memory of p-socks, bytes")             \
	X(ISOCKS, isocks, gauge, "connections to endpoints now")                          \
	X(ISOCKS_IDLE, isocks_idle, gauge, "of them idle in pools")                       \
	X(ISOCK_BYTES, isock_bytes, gauge, "module memory of i-socks and pools, bytes")   \
	X(POOLS, pools, gauge, "pools (identity, cluster, endpoint) now")                 \
	X(PENDING, pending, gauge, "requests that wait for a connection now")             \
	X(IDENTITIES, identities, gauge, "network identities that clients have now")      \
	X(ACCEPTED, accepted, counter, "connects taken over")                             \
	X(REQUESTS, requests, counter, "request heads framed")                            \
	X(RESPONSES, responses, counter, "responses relayed to their end")                \
	X(CONNECTS, connects, counter, "connections to endpoints begun")                  \
	X(CONNECT_ERRORS, connect_errors, counter, "of them failed")                      \
	X(REUSED, reused, counter, "requests sent over a pooled connection")              \
	X(REPLAYED, replayed, counter, "requests sent again after a dead connection")     \
	X(DESYNC, desync, counter, "idle connections closed for unexpected bytes")        \
	X(IDLE_CLOSED, idle_closed, counter, "idle connections closed by the endpoint")   \
	X(IDLE_EXPIRED, idle_expired, counter, "idle connections closed by idle_timeout") \
	X(TUNNELS, tunnels, counter, "connections switched to another protocol (101)")    \
	X(REQUEST_BYTES, request_bytes, counter, "bytes sent to endpoints")               \
	X(RESPONSE_BYTES, response_bytes, counter, "bytes relayed to clients")

enum xlb_counter {
#define X(upper, lower, kind, text) XLB_COUNTER_##upper,
	XLB_COUNTERS(X)
#undef X
	/* clang-format off */
	XLB_COUNTER_COUNT,
	/* clang-format on */
};

/* Room for the engine's own reasons (engine/src/reason.rs), by number. */
#define XLB_ENGINE_REASONS 96

enum xlb_count_kind {
	XLB_COUNT_COUNTER = 0, /* XLB_COUNTERS */
	XLB_COUNT_GAUGE = 1,
	XLB_COUNT_REASON = 2, /* XLB_REASONS: exchanges that ended so */
	XLB_COUNT_ENGINE = 3, /* refused by the engine for this reason */
};

struct xlb_count {
	char name[40];
	__u64 value;
	__u32 kind; /* enum xlb_count_kind */
	__u32 reserved0;
};
_Static_assert(sizeof(struct xlb_count) == 56, "read by xlbctl of an ABI from the oldest on");

struct xlb_info {
	__u32 abi;
	__u32 policy; /* 1 when a policy is attached */
	char policy_name[16];
	char module_version[32];
	__u32 policy_abi;
	__u32 reserved0;
};
_Static_assert(sizeof(struct xlb_info) == 64, "read by xlbctl of an ABI from the oldest on");

enum xlb_socket_state {
	XLB_SOCKET_IDLE = 0, /* between requests */
	XLB_SOCKET_REQUEST_HEAD = 1, /* part of a head was written */
	XLB_SOCKET_WAITING = 2, /* for a connection */
	XLB_SOCKET_ACTIVE = 3, /* bound to an i-sock */
	XLB_SOCKET_TUNNEL = 4, /* after 101 */
	XLB_SOCKET_CLOSING = 5, /* no further request is taken */
	XLB_SOCKET_PLAIN = 6, /* was connected elsewhere since, or is not connected */
};

struct xlb_socket_info {
	__u64 id; /* SO_COOKIE; 0 when nobody has asked for it, which the connect program does */
	__u64 cgroup_id;
	__u64 requests;
	__u32 pid; /* thread group that connected */
	__u32 service;
	__u32 netns; /* inode number */
	__u32 state; /* enum xlb_socket_state */
	__u32 receive_bytes; /* queued towards the client */
	__u32 send_bytes; /* queued towards the endpoint */
	__u8 vip[16];
	__u8 endpoint[16]; /* all 0 when not bound */
	__u16 vip_port;
	__u16 endpoint_port;
	__u32 endpoint_id; /* xlb_decision.endpoint */
};
_Static_assert(sizeof(struct xlb_socket_info) == 88, "read by xlbctl of an ABI from the oldest on");

struct xlb_pool_info {
	__u64 cgroup_id;
	__u64 created; /* connections since the pool exists */
	__u64 reused; /* requests over a pooled connection */
	__u32 netns;
	__u32 idle;
	__u32 active;
	__u32 connecting;
	__u32 pending;
	__u32 cluster; /* xlb_pool_limits.cluster */
	__u8 addr[16];
	__u16 port;
	/* What else sets its connections apart: see struct xlb_identity of the module. */
	__u16 source_port; /* that the client has bound; 0: none */
	__u8 source[16]; /* bound address; all 0: none */
	char congestion[16];
	__u32 uid; /* of the socket */
	__u32 fsuid; /* of who made it, as owner matches see it */
	__u32 fsgid;
	__u32 secid; /* label, where the LSM has one */
	__u32 bound_dev_if;
	__u32 mark;
	__u32 priority;
	__u32 user_timeout_ms; /* 0: none */
	__u32 keep_idle_s;
	__u8 tos;
	__u8 reserved0[7];
};
_Static_assert(sizeof(struct xlb_pool_info) == 144, "read by xlbctl of an ABI from the oldest on");

#endif /* XLB_INTF_H */
