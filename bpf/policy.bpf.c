// SPDX-License-Identifier: GPL-2.0
/*
 * The policy of XLB: which cluster and which endpoint get a request.
 *
 * The module calls these programs through struct_ops, in process context and in
 * an RCU read-side section, preemptible:
 *   route()  once for each request head: its route, its cluster and an endpoint;
 *   pick()   each time that the request is about to be given to another endpoint;
 *   done()   once for each endpoint that was picked, when the exchange has ended.
 *
 * A decision carries the generation of the service's routes that it was made in.
 * When route() or pick() finds others in force, it says XLB_REASON_RETRIED, and the
 * module asks for the whole decision again: a request sees one version of the routes, never
 * parts of two.  The same holds of the cluster while an endpoint of it is chosen.
 */
#include "vmlinux.h"
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "../kmod/include/xlb_intf.h"
#include "blob.h"
#include "kfuncs.h"
#include "maps.h"
#include "walk.h"
#include "host.h"
#include "condition.h"
#include "match.h"
#include "balance.h"

char LICENSE[] SEC("license") = "GPL";

/*
 * Nanoseconds of uptime when this load was begun.  A decision of an earlier load has a lower
 * cookie[0], for an apply takes longer than a nanosecond: it is not counted in this one.
 */
const volatile __u64 epoch = 0;

/* Which programs these are.  Both are read from outside, in this order. */
const volatile __u64 build = 0;

/*
 * cookie[0]: epoch + generation; cookie[1]: number of the service, LOADED, slot of the cluster,
 * high half first.
 */
#define PAIR(high, low) (((__u64)(high) << 32) | (__u32)(low))
#define HIGH(pair) ((__u32)((pair) >> 32))
#define LOW(pair) ((__u32)(pair) & ~LOADED)
/* The request is in its endpoint's load. */
#define LOADED (1u << 31)
_Static_assert(XLB_CLUSTER_SLOTS <= LOADED, "a slot leaves the bit free");

static __always_inline void add(__u64 *counter, __u64 n)
{
	/* The programs are preemptible: another one may count on this CPU meanwhile. */
	if (n)
		__sync_fetch_and_add(counter, n);
}

static __always_inline bool changed(struct xlb_request *req, struct xlb_blob *head)
{
	struct xlb_blob *now;

	return !blob_of(req, head->generation, &now);
}

static __always_inline void count_refused(__u32 number)
{
	struct xlb_stats *s = number ? stats_of(number) : NULL;

	if (s) {
		add(&s->requests, 1);
		add(&s->errors, 1);
	}
}

/*
 * XLB_REASON_RETRIED when the configuration is another one by now; else counts, for the route
 * and the cluster too where they are known (0: they are not), and returns `reason`.
 */
static __always_inline int refuse(struct xlb_request *req, struct xlb_blob *head,
				  struct xlb_decision *dec, int reason)
{
	if (changed(req, head))
		return XLB_REASON_RETRIED;
	count_refused(head->number);
	count_refused(dec->route);
	count_refused(dec->cluster);
	return reason;
}

/*
 * What the route does with the request beside sending it: hands that over.  0; XLB_REASON_RESPOND
 * when nothing is sent; XLB_REASON_RETRIED.
 */
static __always_inline int act(unsigned long long *ctx, void *blob, struct xlb_blob *head,
			       struct xlb_route *route)
{
	int err = bpf_xlb_act(EXCHANGE(ctx), blob, head->action_base + route->action,
			      route->action_count, sizeof(struct xlb_action));

	if (err)
		return err == -EAGAIN ? XLB_REASON_RETRIED : XLB_REASON_NO_ROUTE;
	return route->flags & XLB_ROUTE_ANSWERS ? XLB_REASON_RESPOND : 0;
}

static __always_inline void count_responded(__u32 number, __u32 status)
{
	struct xlb_stats *s = number ? stats_of(number) : NULL;

	if (!s)
		return;
	add(&s->requests, 1);
	if (status >= 500)
		add(&s->status_5xx, 1);
	else if (status >= 400)
		add(&s->status_4xx, 1);
}

/* The client gets what the route says: the first of its actions. */
static __noinline int respond(unsigned long long *ctx, __u64 generation, __u32 route, __u32 action)
{
	struct xlb_action *record;
	struct xlb_blob *head;
	void *blob = blob_of(REQUEST(ctx), generation, &head);

	record = blob ? blob_record(blob, head->action_base, action, struct xlb_action) : NULL;
	if (!record)
		return XLB_REASON_RETRIED;
	count_responded(head->number, record->status);
	count_responded(route, record->status);
	return XLB_REASON_RESPOND;
}

/* FNV-1a of the cookie that XLB_ACTION_COOKIE makes of `affinity`. */
static __always_inline __u64 cookie_hash(__u64 affinity)
{
	__u64 hash = 0xcbf29ce484222325ull;

	for (int shift = 60; shift >= 0; shift -= 4) {
		__u32 digit = affinity >> shift & 15;

		hash ^= digit + (digit < 10 ? '0' : 'a' - 10);
		hash *= 0x100000001b3ull;
	}
	return hash;
}

/* Hashes the request by the first that it has of `count` conditions of kind HASH: the decision's `hash`, never 0 then. */
__noinline int hash_request(unsigned long long *ctx __arg_ctx, __u64 generation, __u32 first,
			    __u32 count)
{
	struct xlb_decision *dec = DECISION(ctx);
	struct xlb_request *req = REQUEST(ctx);
	struct xlb_blob *head;
	void *blob = blob_of(req, generation, &head);
	__u64 hash = 0;
	int i;

	if (!blob || count > XLB_MAX_HASHES)
		return 0;
	bpf_for(i, 0, count) {
		struct xlb_condition *c;
		void *names;
		int field;

		c = blob_record(blob, head->condition_base, first + i, struct xlb_condition);
		if (!c)
			break;
		if (c->place == XLB_PLACE_SOURCE) {
			hash = req->source;
			break;
		}
		names = blob_page(blob, c->name_page);
		if (!names)
			break;
		field = bpf_xlb_named(EXCHANGE(ctx), c->place, names, XLB_PAGE_BYTES,
				      XLB_OFF_LEN(c->name_offset, c->name_bytes));
		if (field >= 0) {
			int len = bpf_xlb_len(EXCHANGE(ctx), field);

			hash = bpf_xlb_hash(EXCHANGE(ctx), field, 0, len);
			break;
		}
		if (c->kind == XLB_CONDITION_HASH_MADE) {
			__u64 affinity = PAIR(bpf_get_prandom_u32(), bpf_get_prandom_u32());

			/* 0 is none. */
			dec->affinity = affinity | !affinity;
			hash = cookie_hash(dec->affinity);
			break;
		}
	}
	/* Whatever was found; without any it stays 0. */
	dec->hash = hash;
	return 0;
}

/* What the service says of the request, whatever its route. */
static __always_inline __u16 flags_of(struct xlb_request *req, struct xlb_blob *head)
{
	__u16 flags = 0;

	if (head->flags & XLB_BLOB_FORWARD_NORMAL)
		flags |= XLB_DECISION_FORWARD_NORMAL;
	if (!req->upgrade)
		return flags;
	for (int i = 0; i < XLB_MAX_UPGRADES; i++) {
		if (head->upgrades[i] == req->upgrade)
			flags |= XLB_DECISION_UPGRADE;
	}
	return flags;
}

/* Fills route(), cluster and cookie of the decision; 0 or an enum xlb_reason. */
static __always_inline int decide(unsigned long long *ctx, void *blob, struct xlb_blob *head,
				  struct xlb_decision *dec)
{
	struct xlb_cluster *cluster;
	struct xlb_route *route;
	__u32 vhost, index, slot;

	/* May be of an earlier try. */
	dec->route = 0;
	dec->cluster = 0;
	vhost = find_vhost(ctx, head);
	if (vhost == XLB_NONE)
		return XLB_REASON_NO_ROUTE;
	index = find_route(ctx, blob, head, vhost);
	if (index == XLB_NONE)
		return XLB_REASON_NO_ROUTE;
	if (index == XLB_LATER)
		return XLB_REASON_RETRIED;
	route = blob_record(blob, head->route_base, index, struct xlb_route);
	if (!route)
		return XLB_REASON_NO_ROUTE;
	dec->route = route->number;
	if (route->action_count) {
		int reason = act(ctx, blob, head, route);

		if (reason == XLB_REASON_RESPOND)
			return respond(ctx, head->generation, route->number, route->action);
		if (reason)
			return reason;
	}
	dec->hash = 0;
	dec->affinity = 0;
	if (route->hash_count)
		hash_request(ctx, head->generation, route->condition + route->condition_count,
			     route->hash_count);
	slot = choose_cluster(blob, head, route);
	if (slot == XLB_NONE || !cluster_now(slot, &cluster))
		return XLB_REASON_NO_ENDPOINT;

	dec->cluster = cluster->number;
	dec->cookie[0] = epoch + head->generation;
	dec->cookie[1] = PAIR(head->number, slot);
	return 0;
}

/* Picks an endpoint of the cluster that was decided on; 0 or an enum xlb_reason. */
static __always_inline int pick_endpoint(unsigned long long *ctx, struct xlb_blob *head,
					 struct xlb_decision *dec)
{
	struct xlb_request *req = REQUEST(ctx);
	__u32 position, slot = LOW(dec->cookie[1]);
	struct xlb_cluster *cluster, *now;
	struct xlb_endpoint *endpoint;
	struct xlb_stats *stats;
	void *blob;

	blob = cluster_now(slot, &cluster);
	if (!blob)
		goto refuse;
	position = choose_endpoint(slot, cluster, dec->hash);
	if (position >= cluster->endpoint_count) {
		/* Chosen from a cluster that has changed meanwhile? */
		if (!cluster_of(slot, cluster->generation, &now))
			return XLB_REASON_RETRIED;
		goto refuse;
	}
	endpoint = endpoint_at(blob, position);
	if (!endpoint)
		goto refuse;
	/* Not again the one that has just failed, where there is another. */
	if (req->attempt && endpoint->number == dec->endpoint && cluster->endpoint_count > 1) {
		position = position + 1 < cluster->endpoint_count ? position + 1 : 0;
		endpoint = endpoint_at(blob, position);
		if (!endpoint)
			goto refuse;
	}

	/*
	 * Until done(): requests that wait for a connection are outstanding too.  What names the
	 * endpoint is in force, so the number is its own; and it stays that until done().
	 */
	stats = stats_of(endpoint->number);
	if (!stats)
		goto refuse;
	add(&stats->picked, 1);
	dec->cookie[1] &= ~(__u64)LOADED;
	if (cluster->lb == XLB_LB_LEAST_REQUEST) {
		/* All CPUs write to this line, so only those who choose by it do. */
		struct xlb_state *state = state_of(endpoint->number);

		if (state) {
			__sync_fetch_and_add(&state->load, 1);
			dec->cookie[1] |= LOADED;
		}
	}

	((__u64 *)dec->addr)[0] = ((__u64 *)endpoint->addr)[0];
	((__u64 *)dec->addr)[1] = ((__u64 *)endpoint->addr)[1];
	dec->port = endpoint->port;
	dec->endpoint = endpoint->number;
	dec->pool.min_idle = cluster->min_idle;
	dec->pool.max = cluster->max;
	dec->pool.max_pending = cluster->max_pending;
	dec->pool.idle_timeout_ms = cluster->idle_timeout_ms;
	dec->pool.connect_timeout_ms = cluster->connect_timeout_ms;
	dec->pool.max_requests = cluster->max_requests;
	dec->pool.pending_timeout_ms = cluster->pending_timeout_ms;
	dec->pool.cluster = cluster->number;
	return 0;

refuse:
	return refuse(req, head, dec, XLB_REASON_NO_ENDPOINT);
}

SEC("struct_ops/route")
int BPF_PROG(route, struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec)
{
	struct xlb_blob *head;
	void *blob = blob_now(req, &head);
	int reason;

	if (!blob)
		return XLB_REASON_NO_ROUTE;
	dec->flags = flags_of(req, head);
	reason = decide(ctx, blob, head, dec);
	if (reason == XLB_REASON_RETRIED || reason == XLB_REASON_RESPOND)
		return reason;
	if (reason)
		return refuse(req, head, dec, reason);
	/* A list that was looked up again after a change ended early. */
	if (changed(req, head))
		return XLB_REASON_RETRIED;
	return pick_endpoint(ctx, head, dec);
}

SEC("struct_ops/pick")
int BPF_PROG(pick, struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec)
{
	struct xlb_blob *head;

	if (!blob_now(req, &head))
		return XLB_REASON_NO_ROUTE;
	if (dec->cookie[0] != epoch + head->generation)
		return XLB_REASON_RETRIED;
	return pick_endpoint(ctx, head, dec);
}

/* For count(): the number still is that of the item that was decided on. */
#define NUMBER_HOLDS (~0ull)

/* `generation` is that of the decision, of which the number may be another item's by now; or NUMBER_HOLDS. */
__noinline int count(unsigned long long *ctx __arg_ctx, __u32 number, __u64 generation)
{
	struct xlb_result *res = RESULT(ctx);
	struct xlb_stats *s = stats_of(number);
	__u32 status = res->status;

	if (!s || (generation != NUMBER_HOLDS && !is_of(state_of(number), generation)))
		return 0;
	if (res->reason == XLB_REASON_RETRIED) {
		/* The same request comes again, and is counted then. */
		add(&s->retries, 1);
		return 0;
	}
	add(&s->requests, 1);
	if (res->reason != XLB_REASON_OK)
		add(&s->errors, 1);
	else if (status >= 500)
		add(&s->status_5xx, 1);
	else if (status >= 400)
		add(&s->status_4xx, 1);
	add(&s->request_bytes, res->request_bytes);
	add(&s->response_bytes, res->response_bytes);
	add(&s->latency_ns, res->latency_ns);
	return 0;
}

SEC("struct_ops/done")
void BPF_PROG(done, struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec,
	      struct xlb_result *res)
{
	__u64 generation = dec->cookie[0] - epoch;
	struct xlb_blob *head;

	if (dec->cookie[0] <= epoch)
		return;
	/*
	 * What the routes in force name keeps its number: the common case looks up no state.  An
	 * endpoint's is given out again only when none that was picked is outstanding.
	 */
	if (blob_of(req, generation, &head))
		generation = NUMBER_HOLDS;
	if (dec->cookie[1] & LOADED) {
		struct xlb_state *state = state_of(dec->endpoint);

		if (state)
			__sync_fetch_and_add(&state->load, -1);
	}
	count(ctx, dec->endpoint, NUMBER_HOLDS);
	count(ctx, dec->cluster, generation);
	count(ctx, dec->route, generation);
	count(ctx, HIGH(dec->cookie[1]), generation);
}

/* As the module's BTF has it; libbpf matches members by name. */
struct xlb_policy {
	int (*route)(struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec);
	int (*pick)(struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec);
	void (*done)(struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec,
		     struct xlb_result *res);
	__u32 abi;
	char name[16];
};

SEC(".struct_ops.link")
struct xlb_policy policy = {
	.route = (void *)route,
	.pick = (void *)pick,
	.done = (void *)done,
	.abi = XLB_ABI,
	.name = "xlb",
};
