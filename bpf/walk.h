/* SPDX-License-Identifier: GPL-2.0 */
/* Access to the records and strings of a blob. */
#ifndef XLB_WALK_H
#define XLB_WALK_H

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
 * Record `index` of the table that begins at `page`, or NULL.  Records have a
 * power of two bytes: the mask is what shows the verifier that one is in its page.
 */
#define RECORDS_PER_PAGE(type) (XLB_PAGE_BYTES / sizeof(type))
#define blob_record(blob, page, index, type)                                 \
	((type *)blob_at(blob, (page) + (__u32)(index) / RECORDS_PER_PAGE(type), \
			 (__u32)(index) % RECORDS_PER_PAGE(type) * sizeof(type)))

/* Is field[from, from + bytes) the string at page, offset? */
static __always_inline bool blob_equal(void *blob, struct xlb_request *req, __u32 field,
				       __u32 from, __u32 page, __u32 offset, __u32 bytes)
{
	void *string = blob_page(blob, page);

	return string && bpf_xlb_equal(req, XLB_FIELD_FROM(field, from), string, XLB_PAGE_BYTES,
				       XLB_OFF_LEN(offset, bytes)) == 1;
}

/* The entry of the key field[from, to) in a scope, or NULL. */
static __noinline struct xlb_index *index_find(void *blob, struct xlb_blob *head,
					       struct xlb_request *req, __u32 from_field,
					       __u64 to_scope)
{
	__u32 from = from_field & 0xffffff, field = from_field >> 24;
	__u32 scope = to_scope, to = to_scope >> 32;
	__u64 hash = bpf_xlb_hash(req, field, from, to);
	__u32 home = XLB_HOME(hash, scope);

	for (int probe = 0; probe < XLB_MAX_PROBES; probe++) {
		struct xlb_index *entry;

		entry = blob_record(blob, head->index_page, (home + probe) & head->index_mask,
				    struct xlb_index);
		if (!entry || !entry->scope)
			return NULL;
		if (entry->hash == hash && entry->scope == scope &&
		    entry->string_bytes == to - from &&
		    blob_equal(blob, req, field, from, entry->string_page, entry->string_offset,
			       entry->string_bytes))
			return entry;
	}
	return NULL;
}

/* A function has five arguments at most: the range and the field share two of them. */
#define INDEX_FIND(blob, head, req, field, from, to, scope)            \
	index_find(blob, head, req, ((__u32)(field) << 24) | (from), \
		   ((__u64)(to) << 32) | (scope))

#endif /* XLB_WALK_H */
