/* SPDX-License-Identifier: GPL-2.0 */
/* Does one condition of a route hold: on a header, query parameter, cookie or the path. */
#ifndef XLB_CONDITION_H
#define XLB_CONDITION_H

/* field[from, to) */
struct xlb_range {
	__u32 field;
	__u32 from;
	__u32 to;
};

/* One page of the blob, as a function that is not static can get it. */
struct xlb_page {
	__u8 bytes[XLB_PAGE_BYTES];
};

static __always_inline bool page_equal(struct xlb_request *req, __u32 field, __u32 from,
				       struct xlb_page *page, __u32 offset, __u32 bytes)
{
	return bpf_xlb_equal(req, XLB_FIELD_FROM(field, from), page, XLB_PAGE_BYTES,
			     XLB_OFF_LEN(offset, bytes)) == 1;
}

__noinline int contains(unsigned long long *ctx __arg_ctx, struct xlb_condition *c __arg_nonnull,
			struct xlb_range *in __arg_nonnull, struct xlb_page *values __arg_nonnull)
{
	struct xlb_request *req = REQUEST(ctx);
	__u32 from = in->from, bytes = c->value_bytes;
	int i;

	if (!bytes)
		return true;
	bpf_for(i, 0, 65536) {
		int at = bpf_xlb_find(req, in->field, from, c->first);

		if (at < 0 || (__u64)(__u32)at + bytes > in->to)
			return false;
		if (page_equal(req, in->field, at, values, c->value_offset, bytes))
			return true;
		from = at + 1;
	}
	return false;
}

static __always_inline bool value_holds(unsigned long long *ctx, void *blob,
					struct xlb_condition *c, struct xlb_range *in)
{
	__u32 from = in->from, bytes = in->to - in->from;
	struct xlb_page *values;

	if (c->kind == XLB_CONDITION_PRESENT)
		return true;
	if (bytes < c->value_bytes)
		return false;
	values = blob_page(blob, c->value_page);
	if (!values)
		return false;
	switch (c->kind) {
	case XLB_CONDITION_EXACT:
		if (bytes != c->value_bytes)
			return false;
		break;
	case XLB_CONDITION_PREFIX:
		break;
	case XLB_CONDITION_SUFFIX:
		from = in->to - c->value_bytes;
		break;
	case XLB_CONDITION_CONTAINS:
		return contains(ctx, c, in, values);
	default:
		return false;
	}
	return page_equal(REQUEST(ctx), in->field, from, values, c->value_offset, c->value_bytes);
}

/*
 * The first `name=value` of `in` with the condition's name, parts separated by `separator`;
 * a part without "=" has an empty value.  `in` becomes the value.
 */
__noinline int find_part(unsigned long long *ctx __arg_ctx, struct xlb_condition *c __arg_nonnull,
			 struct xlb_range *in __arg_nonnull, struct xlb_page *names __arg_nonnull,
			 __u32 separator)
{
	struct xlb_request *req = REQUEST(ctx);
	__u32 start = in->from, bytes = c->name_bytes;
	int i;

	bpf_for(i, 0, XLB_MAX_PARTS) {
		__u32 end, equals;
		int at;

		if (start >= in->to)
			break;
		/* RFC 6265, section 4.2.1: one space after the semicolon. */
		if (separator == ';' && bpf_xlb_find(req, in->field, start, ' ') == (int)start)
			start++;
		at = bpf_xlb_find(req, in->field, start, separator);
		end = at < 0 || (__u32)at > in->to ? in->to : (__u32)at;
		at = bpf_xlb_find(req, in->field, start, '=');
		equals = at < 0 || (__u32)at > end ? end : (__u32)at;
		if (equals - start == bytes &&
		    page_equal(req, in->field, start, names, c->name_offset, bytes)) {
			in->from = equals < end ? equals + 1 : end;
			in->to = end;
			return true;
		}
		start = end + 1;
	}
	return false;
}

/* The field that the condition is about; false when the request has none. */
static __always_inline bool find_field(void *blob, struct xlb_request *req, struct xlb_condition *c,
				       struct xlb_range *in)
{
	void *name;
	int bytes;

	in->from = 0;
	if (c->place == XLB_PLACE_QUERY) {
		in->field = XLB_FIELD_QUERY;
	} else if (c->place == XLB_PLACE_PATH) {
		in->field = XLB_FIELD_PATH;
	} else {
		int field;

		name = blob_page(blob, c->header_page);
		if (!name)
			return false;
		field = bpf_xlb_header(req, name, XLB_PAGE_BYTES,
				       XLB_OFF_LEN(c->header_offset, c->header_bytes));
		if (field < 0)
			return false;
		in->field = field;
	}
	bytes = bpf_xlb_len(req, in->field);
	if (bytes < 0)
		return false;
	in->to = bytes;
	return true;
}

/* Does the condition at `index` hold? */
__noinline int condition_holds(unsigned long long *ctx __arg_ctx, __u32 generation, __u32 index)
{
	struct xlb_request *req = REQUEST(ctx);
	struct xlb_range in = {};
	struct xlb_condition *c;
	struct xlb_blob *head;
	void *blob = blob_of(req, generation, &head);
	bool found;

	if (!blob)
		return false;
	c = blob_record(blob, head->condition_page, index, struct xlb_condition);
	if (!c)
		return false;
	if (c->kind == XLB_CONDITION_PERCENT)
		return bpf_get_prandom_u32() % 100 < c->number;

	found = find_field(blob, req, c, &in);
	if (found && (c->place == XLB_PLACE_QUERY || c->place == XLB_PLACE_COOKIE)) {
		struct xlb_page *names = blob_page(blob, c->name_page);

		found = names &&
			find_part(ctx, c, &in, names, c->place == XLB_PLACE_QUERY ? '&' : ';');
	}
	if (c->kind == XLB_CONDITION_ABSENT)
		return !found;
	return found && value_holds(ctx, blob, c, &in);
}

#endif /* XLB_CONDITION_H */
