/* SPDX-License-Identifier: GPL-2.0 */
/* Which virtual host: exact, then the longest "*.suffix", then the longest "prefix.*", then "*". */
#ifndef XLB_HOST_H
#define XLB_HOST_H

static __noinline __u32 find_suffix(void *blob, struct xlb_blob *head, struct xlb_request *req)
{
	int dot = 0, label;

	/* From the left: the first hit is the longest suffix. */
	bpf_for(label, 0, XLB_MAX_LABELS) {
		struct xlb_index *entry;

		dot = bpf_xlb_find(req, XLB_FIELD_HOST, dot, '.');
		if (dot < 0)
			break;
		/* "*" stands for one byte at least. */
		if (dot > 0 && req->host_bytes - dot <= head->max_suffix_bytes) {
			entry = INDEX_FIND(blob, head, req, XLB_FIELD_HOST, dot & 0xffffff,
					   req->host_bytes, XLB_SCOPE(XLB_KEY_HOST_SUFFIX, 0));
			if (entry)
				return entry->value;
		}
		dot++;
	}
	return XLB_NONE;
}

static __noinline __u32 find_prefix(void *blob, struct xlb_blob *head, struct xlb_request *req)
{
	__u32 found = XLB_NONE;
	int dot = 0, label;

	/* From the left: the last hit is the longest prefix. */
	bpf_for(label, 0, XLB_MAX_LABELS) {
		struct xlb_index *entry;

		dot = bpf_xlb_find(req, XLB_FIELD_HOST, dot, '.');
		if (dot < 0 || (__u32)dot >= head->max_prefix_bytes)
			break;
		dot++;
		if ((__u32)dot >= req->host_bytes)
			break;
		entry = INDEX_FIND(blob, head, req, XLB_FIELD_HOST, 0, dot,
				   XLB_SCOPE(XLB_KEY_HOST_PREFIX, 0));
		if (entry)
			found = entry->value;
	}
	return found;
}

/* The index of the virtual host, or XLB_NONE. */
static __always_inline __u32 find_vhost(void *blob, struct xlb_blob *head, struct xlb_request *req)
{
	__u32 found;

	if (head->flags & XLB_BLOB_EXACT_HOST) {
		struct xlb_index *entry = INDEX_FIND(blob, head, req, XLB_FIELD_HOST, 0,
						     req->host_bytes, XLB_SCOPE(XLB_KEY_HOST, 0));

		if (entry)
			return entry->value;
	}
	if (head->flags & XLB_BLOB_SUFFIX_HOST) {
		found = find_suffix(blob, head, req);
		if (found != XLB_NONE)
			return found;
	}
	if (head->flags & XLB_BLOB_PREFIX_HOST) {
		found = find_prefix(blob, head, req);
		if (found != XLB_NONE)
			return found;
	}
	return head->default_vhost;
}

#endif /* XLB_HOST_H */
