/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Access to the records and strings of blobs.
 *
 * The verifier checks a function that is not static once, by the types of its arguments,
 * and a static one anew for each way that leads to it: with loops in loops these are
 * many.  So what has a loop, or much to decide, is not static.  Such a function cannot get
 * a map; it gets the context, and looks the blob up again, or the slot of a cluster.  When
 * the configuration was changed meanwhile it finds nothing, and its caller in the end says
 * XLB_REASON_RETRIED.
 */
#ifndef XLB_WALK_H
#define XLB_WALK_H

/* The arguments of route(), pick() and done(), by position. */
#define EXCHANGE(ctx) ((struct xlb_exchange *)(ctx)[0])
#define REQUEST(ctx) ((struct xlb_request *)(ctx)[1])
#define DECISION(ctx) ((struct xlb_decision *)(ctx)[2])
#define RESULT(ctx) ((struct xlb_result *)(ctx)[3])

static __always_inline void *blob_page(void *blob, __u32 page)
{
	return bpf_map_lookup_elem(blob, &page);
}

static __always_inline void *blob_at(void *blob, __u32 page, __u32 offset)
{
	void *p = blob_page(blob, page);

	if (!p)
		return NULL;
	/* The compiler must not add first and test later: the verifier would refuse that. */
	barrier_var(p);
	return p + offset;
}

/*
 * Record `index` of the table that begins `base` records behind the beginning of the blob, or
 * NULL.  Records have a power of two bytes: the mask is what shows the verifier that one is in
 * its page.
 */
#define RECORDS_PER_PAGE(type) (XLB_PAGE_BYTES / sizeof(type))
#define blob_record(blob, base, index, type)                                              \
	((type *)blob_at(blob, ((__u32)(base) + (__u32)(index)) / RECORDS_PER_PAGE(type), \
			 ((__u32)(base) + (__u32)(index)) % RECORDS_PER_PAGE(type) *      \
				 sizeof(type)))

/* The configuration in force for the request, and what it says of the service; or NULL. */
static __always_inline void *blob_now(struct xlb_request *req, struct xlb_blob **head)
{
	__u32 slot = req->service;
	void *blob = bpf_map_lookup_elem(&services, &slot);
	struct xlb_group *group;
	__u32 at;

	if (!blob)
		return NULL;
	group = blob_page(blob, 0);
	if (!group)
		return NULL;
	at = group->head[slot % XLB_GROUP];
	if (!at)
		return NULL;
	*head = blob_record(blob, at, 0, struct xlb_blob);
	return *head ? blob : NULL;
}

/* The same, but only if it still is the one of `generation`. */
static __always_inline void *blob_of(struct xlb_request *req, __u64 generation,
				     struct xlb_blob **head)
{
	void *blob = blob_now(req, head);

	return blob && (*head)->generation == generation ? blob : NULL;
}

/* The blob of the cluster in a slot, and its first record; or NULL. */
static __always_inline void *cluster_now(__u32 slot, struct xlb_cluster **cluster)
{
	void *blob = bpf_map_lookup_elem(&clusters, &slot);

	if (!blob)
		return NULL;
	*cluster = blob_page(blob, 0);
	return *cluster ? blob : NULL;
}

/* The same, but only if it still is the one of `generation`. */
static __always_inline void *cluster_of(__u32 slot, __u64 generation, struct xlb_cluster **cluster)
{
	void *blob = cluster_now(slot, cluster);

	return blob && (*cluster)->generation == generation ? blob : NULL;
}

#define ENDPOINTS_PER_PAGE (XLB_CLUSTER_PAGE_BYTES / sizeof(struct xlb_endpoint))

/* Endpoint `index` of a cluster's blob, or NULL. */
static __always_inline struct xlb_endpoint *endpoint_at(void *blob, __u32 index)
{
	__u32 record = XLB_FIRST_ENDPOINT + index;

	return blob_at(blob, record / ENDPOINTS_PER_PAGE,
		       record % ENDPOINTS_PER_PAGE * sizeof(struct xlb_endpoint));
}

/* Record `index` of a table of a power of two bytes each that begins with a page of a cluster's blob, or NULL. */
#define cluster_record(blob, page, index, type)                                                   \
	((type *)blob_at(blob, (page) + (__u32)(index) / (XLB_CLUSTER_PAGE_BYTES / sizeof(type)), \
			 (__u32)(index) % (XLB_CLUSTER_PAGE_BYTES / sizeof(type)) * sizeof(type)))

/* Is field[from, from + bytes) the string at page, offset? */
static __always_inline bool blob_equal(void *blob, struct xlb_exchange *ex, __u32 field, __u32 from,
				       __u32 page, __u32 offset, __u32 bytes)
{
	void *string = blob_page(blob, page);

	return string && bpf_xlb_equal(ex, XLB_FIELD_FROM(field, from), string, XLB_PAGE_BYTES,
				       XLB_OFF_LEN(offset, bytes)) == 1;
}

/* The key field[from, to) in a scope: its entry's count (high half) and value, or XLB_ABSENT. */
#define XLB_ABSENT (~0ull)

__noinline __u64 index_find(unsigned long long *ctx __arg_ctx, __u64 generation, __u32 from_field,
			    __u64 to_scope)
{
	struct xlb_request *req = REQUEST(ctx);
	__u32 from = from_field & 0xffffff, field = from_field >> 24;
	__u32 scope = to_scope, to = to_scope >> 32;
	__u64 hash = bpf_xlb_hash(EXCHANGE(ctx), field, from, to);
	__u32 home = XLB_HOME(hash, scope);
	struct xlb_blob *head;
	void *blob = blob_of(req, generation, &head);
	int probe;

	if (!blob)
		return XLB_ABSENT;
	bpf_for(probe, 0, XLB_MAX_PROBES) {
		struct xlb_index *entry;

		entry = blob_record(blob, head->index_base, (home + probe) & head->index_mask,
				    struct xlb_index);
		if (!entry || !entry->scope)
			break;
		if (entry->hash == hash && entry->scope == scope &&
		    entry->string_bytes == to - from &&
		    blob_equal(blob, EXCHANGE(ctx), field, from, entry->string_page,
			       entry->string_offset, entry->string_bytes))
			return ((__u64)entry->count << 32) | entry->value;
	}
	return XLB_ABSENT;
}

/* A function has five arguments at most: the range and the field share two of them. */
#define INDEX_FIND(ctx, generation, field, from, to, scope) \
	index_find(ctx, generation, ((__u32)(field) << 24) | (from), ((__u64)(to) << 32) | (scope))

#endif /* XLB_WALK_H */
