/* SPDX-License-Identifier: GPL-2.0 */
/* Which cluster of a route, and which endpoint of a cluster. */
#ifndef XLB_BALANCE_H
#define XLB_BALANCE_H

/* Evenly in [0, n): the bias of a 32-bit draw is below n / 2^32. */
static __always_inline __u32 draw(__u32 n)
{
	return ((__u64)bpf_get_prandom_u32() * n) >> 32;
}

/* The cluster of a route by weight: its slot, or XLB_NONE. */
static __always_inline __u32 choose_cluster(void *blob, struct xlb_blob *head,
					    struct xlb_route *route)
{
	__u32 first = route->target, low = 0, high = route->target_count, drawn;
	struct xlb_target *target;
	int i;

	if (!high)
		return XLB_NONE;
	if (high > 1) {
		drawn = draw(route->total_weight);
		bpf_for(i, 0, 32) {
			__u32 middle = low + (high - low) / 2;

			if (low >= high)
				break;
			target = blob_record(blob, head->target_base, first + middle,
					     struct xlb_target);
			if (!target)
				return XLB_NONE;
			if (target->cumulative > drawn)
				high = middle;
			else
				low = middle + 1;
		}
	}
	target = blob_record(blob, head->target_base, first + low, struct xlb_target);
	return target ? target->cluster : XLB_NONE;
}

/* As cluster_of(): those that are not static get a cluster by its slot and generation. */
__noinline __u32 search_position(__u32 slot, __u64 generation, __u32 position)
{
	struct xlb_cluster *cluster;
	void *blob = cluster_of(slot, generation, &cluster);
	__u32 low = 0, high;
	int i;

	if (!blob)
		return XLB_NONE;
	high = cluster->endpoint_count;
	bpf_for(i, 0, 32) {
		__u32 middle = low + (high - low) / 2;
		struct xlb_endpoint *endpoint;

		if (low >= high)
			break;
		endpoint = endpoint_at(blob, middle);
		if (!endpoint)
			break;
		if (endpoint->cumulative > position)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* The endpoint that owns `position` of the weights. */
static __always_inline __u32 at_position(__u32 slot, struct xlb_cluster *cluster, __u32 position)
{
	return cluster->equal ? position : search_position(slot, cluster->generation, position);
}

static __always_inline __u32 round_robin(__u32 slot, struct xlb_cluster *cluster)
{
	struct xlb_state *state = state_of(cluster->number);
	__u64 count, weight = cluster->total_weight;

	if (!state)
		return XLB_NONE;
	count = __sync_fetch_and_add(&state->position, 1);
	if (cluster->equal)
		return count % weight;
	return search_position(slot, cluster->generation,
			       count % weight * cluster->stride % weight);
}

/* Another endpoint than `index`, by weight; n is 2 or more. */
static __always_inline __u32 draw_other(__u32 slot, struct xlb_cluster *cluster, __u32 index)
{
	__u32 n = cluster->endpoint_count, drawn;

	if (cluster->equal)
		return ((__u64)index + 1 + draw(n - 1)) % n;
	drawn = search_position(slot, cluster->generation, draw(cluster->total_weight));
	return drawn != index ? drawn : ((__u64)index + 1) % n;
}

/*
 * The fewest outstanding requests for its weight, of all endpoints or of `choices`
 * drawn ones.  The first is drawn by weight, and of equals the first is best: so
 * endpoints without load get requests in proportion to their weights.  No draw gives
 * the endpoint drawn just before it: two choices are two endpoints.
 */
__noinline __u32 least_request(__u32 slot, __u64 generation)
{
	/* More than any: the first one looked at is better. */
	__u64 best_load = 1ull << 32, best_weight = 1;
	__u32 n, looks, best, index;
	struct xlb_cluster *cluster;
	void *blob = cluster_of(slot, generation, &cluster);
	bool all;
	int i;

	if (!blob || !cluster->endpoint_count)
		return XLB_NONE;
	n = cluster->endpoint_count;
	looks = cluster->choices;
	all = !looks || looks >= n;
	if (all)
		looks = n;
	if (looks > XLB_MAX_ENDPOINTS)
		looks = XLB_MAX_ENDPOINTS;
	index = best = at_position(slot, cluster, draw(cluster->total_weight));
	/* There by its weight, or nowhere: the cluster has changed meanwhile. */
	if (index >= n)
		return XLB_NONE;
	bpf_for(i, 0, looks) {
		struct xlb_endpoint *endpoint;
		struct xlb_state *state;
		__u64 load;

		endpoint = endpoint_at(blob, index);
		if (!endpoint)
			break;
		state = state_of(endpoint->number);
		if (!state)
			break;
		load = state->load & 0xffffffff;
		if (load * best_weight < best_load * endpoint->weight) {
			best = index;
			best_load = load;
			best_weight = endpoint->weight;
		}
		/*
		 * 64 bits wide, and a division: a conditional `index -= n` would give the
		 * verifier new bounds in each round, and it would never see an end.
		 */
		if (all)
			index = ((__u64)index + 1) % n;
		else
			index = draw_other(slot, cluster, index);
	}
	return best;
}

/* The first point at or behind the request's, or the first of all. */
__noinline __u32 ring_hash(__u32 slot, __u64 generation, __u64 hash)
{
	struct xlb_cluster *cluster;
	void *blob = cluster_of(slot, generation, &cluster);
	__u32 at = XLB_POINT(hash) >> 32, low = 0, high, count, page;
	struct xlb_point *point;
	int i;

	if (!blob)
		return XLB_NONE;
	high = count = cluster->choices;
	page = cluster->stride;
	bpf_for(i, 0, 32) {
		__u32 middle = low + (high - low) / 2;

		if (low >= high)
			break;
		point = cluster_record(blob, page, middle, struct xlb_point);
		if (!point)
			break;
		if (point->at >= at)
			high = middle;
		else
			low = middle + 1;
	}
	point = cluster_record(blob, page, low < count ? low : 0, struct xlb_point);
	return point ? point->endpoint : XLB_NONE;
}

__noinline __u32 maglev(__u32 slot, __u64 generation, __u64 hash)
{
	struct xlb_cluster *cluster;
	void *blob = cluster_of(slot, generation, &cluster);
	__u16 *place;

	if (!blob || !cluster->choices)
		return XLB_NONE;
	place = cluster_record(blob, cluster->stride, XLB_POINT(hash) % cluster->choices, __u16);
	return place ? *place : XLB_NONE;
}

/* The endpoint for a request, as a position in the cluster, or XLB_NONE; `hash` is 0 when it has none. */
static __always_inline __u32 choose_endpoint(__u32 slot, struct xlb_cluster *cluster, __u64 hash)
{
	if (cluster->endpoint_count == 0 || cluster->total_weight == 0)
		return XLB_NONE;
	if (cluster->endpoint_count == 1)
		return 0;
	switch (cluster->lb) {
	case XLB_LB_ROUND_ROBIN:
		return round_robin(slot, cluster);
	case XLB_LB_LEAST_REQUEST:
		return least_request(slot, cluster->generation);
	case XLB_LB_RING_HASH:
		if (hash)
			return ring_hash(slot, cluster->generation, hash);
		break;
	case XLB_LB_MAGLEV:
		if (hash)
			return maglev(slot, cluster->generation, hash);
		break;
	case XLB_LB_RANDOM:
		break;
	default:
		return XLB_NONE;
	}
	return at_position(slot, cluster, draw(cluster->total_weight));
}

#endif /* XLB_BALANCE_H */
