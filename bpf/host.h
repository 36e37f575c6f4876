/* SPDX-License-Identifier: GPL-2.0 */
/* Which virtual host: exact, then the longest "*.suffix", then the longest "prefix.*", then "*". */
#ifndef XLB_HOST_H
#define XLB_HOST_H

__noinline __u32 find_suffix(unsigned long long *ctx __arg_ctx, __u64 generation, __u32 max_bytes)
{
	struct xlb_request *req = REQUEST(ctx);
	int dot = 0, label;

	/* From the left: the first hit is the longest suffix. */
	bpf_for(label, 0, XLB_MAX_LABELS) {
		__u64 found;

		dot = bpf_xlb_find(EXCHANGE(ctx), XLB_FIELD_HOST, dot, '.');
		if (dot < 0)
			break;
		/* "*" stands for one byte at least. */
		if (dot > 0 && req->host_bytes - dot <= max_bytes) {
			found = INDEX_FIND(ctx, generation, XLB_FIELD_HOST, dot & 0xffffff,
					   req->host_bytes, XLB_SCOPE(XLB_KEY_HOST_SUFFIX, 0));
			if (found != XLB_ABSENT)
				return found;
		}
		dot++;
	}
	return XLB_NONE;
}

__noinline __u32 find_prefix(unsigned long long *ctx __arg_ctx, __u64 generation, __u32 max_bytes)
{
	struct xlb_request *req = REQUEST(ctx);
	__u64 best = XLB_ABSENT, found;
	int dot = 0, label;

	/* From the left: the last hit is the longest prefix. */
	bpf_for(label, 0, XLB_MAX_LABELS) {
		dot = bpf_xlb_find(EXCHANGE(ctx), XLB_FIELD_HOST, dot, '.');
		if (dot < 0 || (__u32)dot >= max_bytes)
			break;
		dot++;
		if ((__u32)dot >= req->host_bytes)
			break;
		found = INDEX_FIND(ctx, generation, XLB_FIELD_HOST, 0, dot,
				   XLB_SCOPE(XLB_KEY_HOST_PREFIX, 0));
		if (found != XLB_ABSENT)
			best = found;
	}
	return best;
}

/* The index of the virtual host, or XLB_NONE. */
static __always_inline __u32 find_vhost(unsigned long long *ctx, struct xlb_blob *head)
{
	__u64 generation = head->generation;
	__u32 found;

	if (head->flags & XLB_BLOB_EXACT_HOST) {
		__u64 entry = INDEX_FIND(ctx, generation, XLB_FIELD_HOST, 0,
					 REQUEST(ctx)->host_bytes, XLB_SCOPE(XLB_KEY_HOST, 0));

		if (entry != XLB_ABSENT)
			return entry;
	}
	if (head->flags & XLB_BLOB_SUFFIX_HOST) {
		found = find_suffix(ctx, generation, head->max_suffix_bytes);
		if (found != XLB_NONE)
			return found;
	}
	if (head->flags & XLB_BLOB_PREFIX_HOST) {
		found = find_prefix(ctx, generation, head->max_prefix_bytes);
		if (found != XLB_NONE)
			return found;
	}
	return head->default_vhost;
}

#endif /* XLB_HOST_H */
