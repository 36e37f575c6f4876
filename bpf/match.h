/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which route of a virtual host: the first in the file that matches.
 *
 * The index gives, for the request's path and for each of its segment prefixes,
 * the routes that ask for it, in the order of the file; one more list has those that
 * ask for no path.  Each list is walked up to its first route whose other
 * conditions (condition.h) hold, and no further than the best route of the lists before it.
 */
#ifndef XLB_MATCH_H
#define XLB_MATCH_H

/* Do all conditions [first, first + count) hold? */
__noinline int conditions_hold(unsigned long long *ctx __arg_ctx, __u64 generation, __u32 first,
			       __u32 count)
{
	int i;

	if (count > XLB_MAX_CONDITIONS)
		return false;
	bpf_for(i, 0, count) {
		if (!condition_holds(ctx, generation, first + i))
			return false;
	}
	return true;
}

static __always_inline bool route_holds(unsigned long long *ctx, void *blob, struct xlb_blob *head,
					__u32 index)
{
	struct xlb_route *route = blob_record(blob, head->route_base, index, struct xlb_route);

	if (!route)
		return false;
	if (route->methods && !(route->methods & (1U << (REQUEST(ctx)->method & 15))))
		return false;
	return !route->condition_count ||
	       conditions_hold(ctx, head->generation, route->condition, route->condition_count);
}

/* The first route of list[0, count) that holds and comes before `best`; else `best`. */
static __always_inline __u32 walk_list(unsigned long long *ctx, void *blob, struct xlb_blob *head,
				       __u32 list, __u32 count, __u32 best)
{
	int i;

	if (count > XLB_MAX_ROUTES)
		count = XLB_MAX_ROUTES;
	bpf_for(i, 0, count) {
		__u32 *route = blob_record(blob, head->list_base, list + i, __u32);

		if (!route || *route >= best)
			break;
		if (route_holds(ctx, blob, head, *route))
			return *route;
	}
	return best;
}

/* The same for an entry of the index. */
__noinline __u32 scan_entry(unsigned long long *ctx __arg_ctx, __u64 generation, __u64 entry,
			    __u32 best)
{
	struct xlb_blob *head;
	void *blob = blob_of(REQUEST(ctx), generation, &head);

	return blob ? walk_list(ctx, blob, head, entry, entry >> 32, best) : best;
}

/* The same for the key that is the first `bytes` of a field. */
static __always_inline __u32 scan_key(unsigned long long *ctx, __u64 generation, __u32 field,
				      __u32 bytes, __u32 scope, __u32 best)
{
	__u64 entry = INDEX_FIND(ctx, generation, field, 0, bytes, scope);

	return entry == XLB_ABSENT ? best : scan_entry(ctx, generation, entry, best);
}

__noinline __u32 scan_prefixes(unsigned long long *ctx __arg_ctx, __u64 generation, __u32 vhost,
			       struct xlb_vhost *vh __arg_nonnull, __u32 best)
{
	struct xlb_request *req = REQUEST(ctx);
	__u32 depth = vh->depth, from = 1, bytes = req->path_bytes;
	int i;

	if (depth > XLB_MAX_DEPTH)
		depth = XLB_MAX_DEPTH;
	bpf_for(i, 0, depth) {
		__u32 end;
		int slash;

		if (from >= bytes)
			break;
		slash = bpf_xlb_find(EXCHANGE(ctx), XLB_FIELD_PATH, from, '/');
		end = slash < 0 ? bytes : (__u32)slash;
		if (end > vh->max_prefix_bytes)
			break;
		best = scan_key(ctx, generation, XLB_FIELD_PATH, end,
				XLB_SCOPE(XLB_KEY_PATH_PREFIX, vhost), best);
		if (vh->flags & XLB_VHOST_PREFIXES_LOWER)
			best = scan_key(ctx, generation, XLB_FIELD_PATH_LOWER, end,
					XLB_SCOPE(XLB_KEY_PATH_PREFIX_LOWER, vhost), best);
		from = end + 1;
	}
	return best;
}

/* Gives the names that the virtual host's routes ask for; true when it must be asked again. */
__noinline int want_names(unsigned long long *ctx __arg_ctx, __u64 generation, __u32 list,
			  __u32 count)
{
	struct xlb_request *req = REQUEST(ctx);
	struct xlb_blob *head;
	void *blob = blob_of(req, generation, &head);
	int i;

	if (!blob || count > XLB_MAX_WANTED)
		return false;
	bpf_for(i, 0, count) {
		__u32 *index = blob_record(blob, head->list_base, list + i, __u32);
		struct xlb_condition *c;
		void *names;

		if (!index)
			break;
		c = blob_record(blob, head->condition_base, *index, struct xlb_condition);
		if (!c)
			break;
		names = blob_page(blob, c->name_page);
		if (!names)
			break;
		if (bpf_xlb_want(EXCHANGE(ctx), c->place, names, XLB_PAGE_BYTES,
				 XLB_OFF_LEN(c->name_offset, c->name_bytes)) == -EAGAIN)
			return true;
	}
	return false;
}

/* The index of the route; XLB_NONE; or XLB_LATER: the request's fields are not split yet. */
#define XLB_LATER (XLB_NONE - 1)

static __always_inline __u32 find_route(unsigned long long *ctx, void *blob, struct xlb_blob *head,
					__u32 vhost)
{
	struct xlb_vhost *vh = blob_record(blob, head->vhost_base, vhost, struct xlb_vhost);
	__u32 best = XLB_NONE, path_bytes = REQUEST(ctx)->path_bytes;

	if (!vh)
		return XLB_NONE;
	if (vh->named && bpf_xlb_fields(EXCHANGE(ctx), vh->named))
		return XLB_LATER;
	if (vh->want_count && want_names(ctx, head->generation, vh->want_list, vh->want_count))
		return XLB_LATER;
	if (vh->flags & XLB_VHOST_NEEDLES &&
	    bpf_xlb_needles(EXCHANGE(ctx), head->needle_count) == -EAGAIN)
		return XLB_LATER;
	if (vh->any_count)
		best = walk_list(ctx, blob, head, vh->any_list, vh->any_count, best);
	if (vh->flags & XLB_VHOST_PATHS && path_bytes <= vh->max_path_bytes)
		best = scan_key(ctx, head->generation, XLB_FIELD_PATH, path_bytes,
				XLB_SCOPE(XLB_KEY_PATH, vhost), best);
	if (vh->flags & XLB_VHOST_PATHS_LOWER && path_bytes <= vh->max_path_bytes)
		best = scan_key(ctx, head->generation, XLB_FIELD_PATH_LOWER, path_bytes,
				XLB_SCOPE(XLB_KEY_PATH_LOWER, vhost), best);
	if (vh->depth)
		best = scan_prefixes(ctx, head->generation, vhost, vh, best);
	return best;
}

#endif /* XLB_MATCH_H */
