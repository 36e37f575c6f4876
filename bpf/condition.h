/* SPDX-License-Identifier: GPL-2.0 */
/* Does one condition of a route hold: on a header, query parameter, cookie or the path. */
#ifndef XLB_CONDITION_H
#define XLB_CONDITION_H

_Static_assert((int)XLB_PLACE_HEADER == (int)XLB_NAMED_HEADER &&
		       (int)XLB_PLACE_QUERY == (int)XLB_NAMED_QUERY &&
		       (int)XLB_PLACE_COOKIE == (int)XLB_NAMED_COOKIE,
	       "a place is handed to bpf_xlb_named()");

static __always_inline bool contains(struct xlb_exchange *ex, void *blob, struct xlb_blob *head,
				     struct xlb_condition *c, __u32 field, void *values)
{
	if (c->needle) {
		struct xlb_needle *needle;
		int found;

		needle = blob_record(blob, head->needle_base, c->needle, struct xlb_needle);
		found = needle ? bpf_xlb_search(ex, field, blob, needle) : -1;
		if (found >= 0)
			return found;
	}
	return bpf_xlb_contains(ex, XLB_FIELD_FROM(field, 0), values, XLB_PAGE_BYTES,
				XLB_OFF_LEN(c->value_offset, c->value_bytes)) == 1;
}

static __always_inline bool matches(struct xlb_exchange *ex, void *blob, struct xlb_blob *head,
				    struct xlb_condition *c, __u32 field)
{
	struct xlb_regex *regex;

	regex = blob_record(blob, head->regex_base, c->needle, struct xlb_regex);
	return regex && bpf_xlb_match(ex, field, blob, regex) == 1;
}

static __always_inline bool value_holds(struct xlb_exchange *ex, void *blob, struct xlb_blob *head,
					struct xlb_condition *c, __u32 field)
{
	__u32 from = 0, bytes, wanted = c->value_bytes;
	__u64 off_len = XLB_OFF_LEN(c->value_offset, wanted);
	int len = bpf_xlb_len(ex, field);
	void *values;

	if (len < 0)
		return false;
	if (c->kind == XLB_CONDITION_REGEX)
		return matches(ex, blob, head, c, field);
	bytes = len;
	if (bytes < wanted && c->kind != XLB_CONDITION_RANGE)
		return false;
	values = blob_page(blob, c->value_page);
	if (!values)
		return false;
	switch (c->kind) {
	case XLB_CONDITION_EXACT:
		if (bytes != wanted)
			return false;
		break;
	case XLB_CONDITION_PREFIX:
		break;
	case XLB_CONDITION_SUFFIX:
		from = bytes - wanted;
		break;
	case XLB_CONDITION_CONTAINS:
		return contains(ex, blob, head, c, field, values);
	case XLB_CONDITION_RANGE:
		return bpf_xlb_in_range(ex, field, values, XLB_PAGE_BYTES, off_len) == 1;
	default:
		return false;
	}
	return bpf_xlb_equal(ex, XLB_FIELD_FROM(field, from), values, XLB_PAGE_BYTES, off_len) == 1;
}

/*
 * Drawn for the request once, whatever asks for it, and however often it is decided: as Envoy's
 * fractions are of one number for each request.
 */
static __always_inline __u32 draw_of(unsigned long long *ctx)
{
	struct xlb_decision *dec = DECISION(ctx);
	__u32 draw = dec->draw;

	if (!draw) {
		draw = bpf_get_prandom_u32();
		/* 0 is none. */
		dec->draw = draw | !draw;
	}
	return draw;
}

/* Does the condition at `index` hold? */
__noinline int condition_holds(unsigned long long *ctx __arg_ctx, __u64 generation, __u32 index)
{
	struct xlb_request *req = REQUEST(ctx);
	int field = XLB_FIELD_PATH;
	struct xlb_condition *c;
	struct xlb_blob *head;
	void *blob = blob_of(req, generation, &head);

	if (!blob)
		return false;
	c = blob_record(blob, head->condition_base, index, struct xlb_condition);
	if (!c)
		return false;
	if (c->kind == XLB_CONDITION_PERCENT)
		return ((__u64)draw_of(ctx) * XLB_PERCENT_ALL) >> 32 < c->number;

	if (c->place == XLB_PLACE_PATH_LOWER) {
		field = XLB_FIELD_PATH_LOWER;
	} else if (c->place != XLB_PLACE_PATH) {
		void *names = blob_page(blob, c->name_page);

		if (!names)
			return false;
		field = bpf_xlb_named(EXCHANGE(ctx), c->place, names, XLB_PAGE_BYTES,
				      XLB_OFF_LEN(c->name_offset, c->name_bytes));
	}
	if (field < 0)
		return c->kind == XLB_CONDITION_ABSENT;
	if (c->kind == XLB_CONDITION_ABSENT || c->kind == XLB_CONDITION_PRESENT)
		return c->kind == XLB_CONDITION_PRESENT;
	return value_holds(EXCHANGE(ctx), blob, head, c, field) !=
	       (c->flags & XLB_CONDITION_INVERT);
}

#endif /* XLB_CONDITION_H */
