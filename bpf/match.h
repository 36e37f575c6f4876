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

static __noinline bool route_holds(void *blob, struct xlb_blob *head, struct xlb_request *req,
				   __u32 index)
{
	struct xlb_route *route = blob_record(blob, head->route_page, index, struct xlb_route);
	__u32 first, count;
	int i;

	if (!route)
		return false;
	if (route->methods && !(route->methods & (1U << (req->method & 31))))
		return false;
	first = route->condition;
	count = route->condition_count;
	if (count > XLB_MAX_CONDITIONS)
		return false;
	bpf_for(i, 0, count) {
		struct xlb_condition *c = blob_record(blob, head->condition_page, first + i,
						      struct xlb_condition);

		if (!c || !condition_holds(blob, req, c))
			return false;
	}
	return true;
}

/* The first route of list[0, count) that holds and comes before `best`; else `best`. */
static __noinline __u32 scan_list(void *blob, struct xlb_blob *head, struct xlb_request *req,
				  __u64 list_count, __u32 best)
{
	__u32 list = list_count, count = list_count >> 32;
	int i;

	if (count > XLB_MAX_ROUTES)
		count = XLB_MAX_ROUTES;
	bpf_for(i, 0, count) {
		__u32 *route = blob_record(blob, head->list_page, list + i, __u32);

		if (!route || *route >= best)
			break;
		if (route_holds(blob, head, req, *route))
			return *route;
	}
	return best;
}

#define SCAN_LIST(blob, head, req, list, count, best) \
	scan_list(blob, head, req, ((__u64)(count) << 32) | (list), best)

static __noinline __u32 scan_prefixes(void *blob, struct xlb_blob *head, struct xlb_request *req,
				      __u32 vhost, __u32 best)
{
	struct xlb_vhost *vh = blob_record(blob, head->vhost_page, vhost, struct xlb_vhost);
	__u32 depth, from = 1, bytes = req->path_bytes;
	int i;

	if (!vh)
		return best;
	depth = vh->depth;
	if (depth > XLB_MAX_DEPTH)
		depth = XLB_MAX_DEPTH;
	bpf_for(i, 0, depth) {
		struct xlb_index *entry;
		__u32 end;
		int slash;

		if (from >= bytes)
			break;
		slash = bpf_xlb_find(req, XLB_FIELD_PATH, from, '/');
		end = slash < 0 ? bytes : (__u32)slash;
		if (end > vh->max_prefix_bytes)
			break;
		entry = INDEX_FIND(blob, head, req, XLB_FIELD_PATH, 0, end,
				   XLB_SCOPE(XLB_KEY_PATH_PREFIX, vhost));
		if (entry)
			best = SCAN_LIST(blob, head, req, entry->value, entry->count, best);
		from = end + 1;
	}
	return best;
}

/* The index of the route, or XLB_NONE. */
static __always_inline __u32 find_route(void *blob, struct xlb_blob *head, struct xlb_request *req,
					__u32 vhost)
{
	struct xlb_vhost *vh = blob_record(blob, head->vhost_page, vhost, struct xlb_vhost);
	__u32 best = XLB_NONE;

	if (!vh)
		return XLB_NONE;
	if (vh->any_count)
		best = SCAN_LIST(blob, head, req, vh->any_list, vh->any_count, best);
	if (vh->flags & XLB_VHOST_PATHS && req->path_bytes <= vh->max_path_bytes) {
		struct xlb_index *entry = INDEX_FIND(blob, head, req, XLB_FIELD_PATH, 0,
						     req->path_bytes,
						     XLB_SCOPE(XLB_KEY_PATH, vhost));

		if (entry)
			best = SCAN_LIST(blob, head, req, entry->value, entry->count, best);
	}
	if (vh->depth)
		best = scan_prefixes(blob, head, req, vhost, best);
	return best;
}

#endif /* XLB_MATCH_H */
