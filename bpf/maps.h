/* SPDX-License-Identifier: GPL-2.0 */
/* Maps of the policy; all but the outer maps' slots are allocated as they are used. */
#ifndef XLB_MAPS_H
#define XLB_MAPS_H

/* The routes of services: see blob.h.  The number of pages differs from map to map. */
struct xlb_blob_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, XLB_PAGE_BYTES);
};

/* A cluster: the same of smaller pages. */
struct xlb_cluster_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, XLB_CLUSTER_PAGE_BYTES);
};

struct xlb_states_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, XLB_STATE_PAGE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct xlb_state));
};

struct xlb_stats_map {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XLB_STATS_PAGE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct xlb_stats));
};

/* By service slot, as given to bpf_xlb_accept(). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, XLB_MAX_SERVICES);
	__type(key, __u32);
	__array(values, struct xlb_blob_map);
} services SEC(".maps");

/* By cluster slot, which routes' targets name. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, XLB_CLUSTER_SLOTS);
	__type(key, __u32);
	__array(values, struct xlb_cluster_map);
} clusters SEC(".maps");

/* The applied document, which only xlbctl reads: it maps the pages. */
struct xlb_document_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP | BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, XLB_PAGE_BYTES);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, XLB_DOCUMENT_SLOTS);
	__type(key, __u32);
	__array(values, struct xlb_document_map);
} document SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, XLB_MAX_ITEMS / XLB_STATE_PAGE);
	__type(key, __u32);
	__array(values, struct xlb_states_map);
} states SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, XLB_MAX_ITEMS / XLB_STATS_PAGE);
	__type(key, __u32);
	__array(values, struct xlb_stats_map);
} stats SEC(".maps");

static __always_inline struct xlb_state *state_of(__u32 number)
{
	__u32 page = number / XLB_STATE_PAGE, index = number % XLB_STATE_PAGE;
	void *inner = bpf_map_lookup_elem(&states, &page);

	return inner ? bpf_map_lookup_elem(inner, &index) : NULL;
}

/* Is the number still the item's that a decision of this generation was about? */
static __always_inline bool is_of(struct xlb_state *state, __u64 generation)
{
	return state && state->generation <= generation;
}

static __always_inline struct xlb_stats *stats_of(__u32 number)
{
	__u32 page = number / XLB_STATS_PAGE, index = number % XLB_STATS_PAGE;
	void *inner = bpf_map_lookup_elem(&stats, &page);

	return inner ? bpf_map_lookup_elem(inner, &index) : NULL;
}

#endif /* XLB_MAPS_H */
