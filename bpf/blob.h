/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The compiled form of configuration: what xlbctl writes and the BPF programs read.
 *
 * The routes of a service are a blob: an array map of 4 KiB pages.  Tables and strings
 * stand in it one behind the other.  A table is an array of records whose size is a power
 * of two, aligned to it, so that no record crosses a page and the verifier sees every
 * access in bounds by a mask.  Where a table begins is told in records of its kind from
 * the beginning of the blob.  A string (up to 4 KiB) never crosses a page.  Swapping the
 * one slot that points to a blob changes all routes of a service at once.  Small services
 * of neighbouring slots share one: page 0 begins with struct xlb_group, which says where
 * each has its struct xlb_blob.
 *
 * A cluster with its endpoints is a blob of its own, of smaller pages: an endpoint that
 * comes or goes rewrites it and nothing else, for all services that use the cluster.
 * Routes name clusters by their slots.  A cluster that changes together with routes to it
 * moves to another slot: the new routes lead there, and the old ones never see it.
 *
 * BPF includes this file; xlbctl gets it through bindgen.
 */
#ifndef XLB_BLOB_H
#define XLB_BLOB_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

/* Raised by every change to this file; xlbctl refuses to write into maps of another layout. */
#ifdef XLB_NEXT_LAYOUT /* for tests of upgrades */
#define XLB_LAYOUT 1000
#else
#define XLB_LAYOUT 11
#endif

#define XLB_PAGE_BYTES 4096
#define XLB_CLUSTER_PAGE_BYTES 1024
#define XLB_NONE 0xffffffffu

/* Sizes of the fixed maps: the limits that xlbctl states. */
#define XLB_MAX_SERVICES 16384 /* slots of the outer map: 8 bytes each */
#define XLB_MAX_VIPS 262144
#define XLB_MAX_CLUSTERS 131072
#define XLB_CLUSTER_SLOTS (2 * XLB_MAX_CLUSTERS) /* each may move at once; 8 bytes each */
#define XLB_MAX_ITEMS 1048576 /* services, routes, clusters, endpoints together */
#define XLB_MAX_ROUTES 65536 /* in one virtual host */
#define XLB_MAX_ENDPOINTS 65536 /* in one cluster */
#define XLB_MAX_TARGETS 1024 /* weighted clusters of one route */
#define XLB_MAX_CONDITIONS 64 /* of one route */
#define XLB_MAX_POINTS 1048576 /* of a ring */
#define XLB_MAX_HASHES 16 /* what a route hashes requests by */
/* Names of a virtual host: parameters and cookies. */
#define XLB_MAX_WANTED (2 * XLB_MAX_CONDITIONS)
#define XLB_MAX_DEPTH 64 /* segments of a path prefix */
#define XLB_MAX_LABELS 128 /* dots in a host: a DNS name of 255 bytes has fewer */
#define XLB_MAX_CGROUP_LEVEL 64
/* xlbctl doubles the index until no key is further than this from its place. */
#define XLB_MAX_PROBES 8

/* Numbered items: counters and state of a number live in page number / N of two outer maps. */
#define XLB_STATE_PAGE 1024
#define XLB_STATS_PAGE 256

/* --- Services ------------------------------------------------------------------ */

/* Slots n * XLB_GROUP to (n + 1) * XLB_GROUP - 1 may share a blob. */
#define XLB_GROUP 16

/* At the beginning of a blob. */
struct xlb_group {
	__u32 head[XLB_GROUP]; /* by slot % XLB_GROUP: which struct xlb_blob; 0: not in here */
};
_Static_assert(sizeof(struct xlb_group) == 64, "read by BPF of the same layout");

#define XLB_BLOB_EXACT_HOST 0x1
#define XLB_BLOB_SUFFIX_HOST 0x2
#define XLB_BLOB_PREFIX_HOST 0x4
#define XLB_BLOB_FORWARD_NORMAL 0x8 /* paths are forwarded in normal form */

#define XLB_MAX_UPGRADES 16 /* protocols of one service */

struct xlb_blob {
#ifdef XLB_NEXT_LAYOUT
	__u64 next[2];
#endif
	__u32 layout; /* XLB_LAYOUT */
	__u32 number; /* of the service */
	__u64 generation; /* of one load: the applies so far, with this one */
	__u32 flags; /* XLB_BLOB_* */
	/* Where each table begins: records of its kind from the beginning of the blob. */
	__u32 index_base; /* struct xlb_index */
	__u32 vhost_base; /* struct xlb_vhost */
	__u32 list_base; /* __u32: routes, by position */
	__u32 route_base; /* struct xlb_route */
	__u32 condition_base; /* struct xlb_condition */
	__u32 target_base; /* struct xlb_target */
	__u32 needle_base; /* struct xlb_needle, by their numbers */
	__u32 needle_count; /* with those that are none; 0: there is none */
	__u32 index_mask; /* entries of the index, less one */
	__u32 default_vhost; /* of domain "*", or XLB_NONE */
	__u32 max_suffix_bytes; /* the longest of the "*.suffix" domains, without "*" */
	__u32 max_prefix_bytes; /* the longest of the "prefix.*" domains, without "*" */
	__u32 action_base; /* struct xlb_action */
	__u32 regex_base; /* struct xlb_regex */
	__u32 reserved0;
	__u64 upgrades[XLB_MAX_UPGRADES]; /* as in struct xlb_request; 0: none */
#ifdef XLB_NEXT_LAYOUT
	__u64 reserved1[4];
#else
	__u64 reserved1[6];
#endif
};
_Static_assert(sizeof(struct xlb_blob) == 256, "a power of two");

/* --- The index: one open-addressing hash table for hosts and paths ------------- */

/* What a key means; the scope of an entry is XLB_SCOPE(kind, virtual host). */
enum xlb_key {
	XLB_KEY_NONE = 0, /* free entry */
	XLB_KEY_HOST = 1, /* a whole host */
	XLB_KEY_HOST_SUFFIX = 2, /* ".example.com" of "*.example.com" */
	XLB_KEY_HOST_PREFIX = 3, /* "example." of "example.*" */
	XLB_KEY_PATH = 4, /* a whole path */
	XLB_KEY_PATH_PREFIX = 5, /* whole segments, without trailing slash */
	/* The same without case: the string is in lower case. */
	XLB_KEY_PATH_LOWER = 6,
	XLB_KEY_PATH_PREFIX_LOWER = 7,
};

#define XLB_SCOPE(key, vhost) (((__u32)(key) << 28) | (__u32)(vhost))
#define XLB_MAX_VHOSTS 65536 /* of one service */

/* Where a key's entry is looked for: XLB_HOME(FNV-1a of the string, scope) & mask, and on. */
#define XLB_HOME(hash, scope) \
	((__u32)((((hash) ^ ((__u64)(scope) << 16)) * 0x9e3779b97f4a7c15ull) >> 32))

struct xlb_index {
	__u64 hash; /* FNV-1a of the string */
	__u32 scope; /* 0: free */
	__u32 string_page;
	__u16 string_offset;
	__u16 string_bytes;
	__u32 value; /* hosts: virtual host; paths: first position in the list table */
	__u32 count; /* paths: routes in the list */
	__u32 reserved0;
};
_Static_assert(sizeof(struct xlb_index) == 32, "a power of two");

#define XLB_VHOST_PATHS 0x1 /* has exact paths.. */
#define XLB_VHOST_PATHS_LOWER 0x4 /* ..without case.. */
#define XLB_VHOST_PREFIXES_LOWER 0x8 /* ..prefixes without case; depth and lengths are of all */
#define XLB_VHOST_NEEDLES 0x2 /* some values are searched for many strings or expressions at once */

struct xlb_vhost {
	__u32 any_list; /* routes without a path, or with prefix "/" */
	__u32 any_count;
	__u16 depth; /* most segments of a path prefix; 0: there is none */
	__u16 flags; /* XLB_VHOST_* */
	__u32 reserved0;
	__u32 max_path_bytes; /* the longest exact path */
	__u32 max_prefix_bytes; /* the longest path prefix */
	__u16 named; /* XLB_NAMED_* that its routes ask for so often that a table of all pays */
	__u16 want_count; /* conditions that have the other names they ask for, each once.. */
	__u32 want_list; /* ..in the list table, from here on */
};
_Static_assert(sizeof(struct xlb_vhost) == 32, "a power of two");

/* --- Routes -------------------------------------------------------------------- */

#define XLB_ROUTE_ANSWERS 0x1 /* the first of its actions says what the client gets */

/* In the order of the file: of all that match, the lowest index wins. */
struct xlb_route {
	__u16 methods; /* bit 1 << enum xlb_method; 0: all */
	__u16 flags; /* XLB_ROUTE_* */
	__u32 condition; /* first, in the condition table */
	__u8 condition_count;
	__u8 hash_count; /* behind those, in the condition table: what it hashes requests by, the first that is there */
	__u16 action_count; /* 0: it is sent, and that is all */
	__u32 number;
	__u32 target; /* first, in the target table */
	__u32 target_count;
	__u32 total_weight;
	__u32 action; /* first, in the action table */
};
_Static_assert(sizeof(struct xlb_route) == 32, "a power of two");

/* How a value is compared. */
enum xlb_condition_kind {
	XLB_CONDITION_NEVER = 0,
	XLB_CONDITION_EXACT = 1,
	XLB_CONDITION_PREFIX = 2,
	XLB_CONDITION_SUFFIX = 3,
	XLB_CONDITION_CONTAINS = 4,
	XLB_CONDITION_PRESENT = 5,
	XLB_CONDITION_ABSENT = 6,
	XLB_CONDITION_PERCENT = 7, /* `number` in XLB_PERCENT_ALL; one draw for all of a request */
	XLB_CONDITION_RANGE =
		8, /* a number; the value is two __s64, from the first to before the second */
	XLB_CONDITION_REGEX = 11, /* all of the value; `needle` is in the table of expressions */
	XLB_CONDITION_HASH = 9, /* none: what a request is hashed by */
	XLB_CONDITION_HASH_MADE = 10, /* the same, of a cookie that is made when it is absent */
};

#define XLB_PERCENT_ALL 1000000

/* Holds where it does not; of a value that is absent it never holds. */
#define XLB_CONDITION_INVERT 0x1

/* Where the value is; those with a name are enum xlb_named. */
enum xlb_condition_place {
	XLB_PLACE_PATH = 0, /* the whole path */
	XLB_PLACE_HEADER = 1,
	XLB_PLACE_QUERY = 2, /* a parameter, as written: not percent-decoded */
	XLB_PLACE_COOKIE = 4,
	XLB_PLACE_PATH_LOWER = 8, /* PATH in lower case */
	XLB_PLACE_SOURCE = 16, /* HASH: who sends it */
};

struct xlb_condition {
	__u8 kind; /* enum xlb_condition_kind */
	__u8 place; /* enum xlb_condition_place */
	__u16 flags; /* XLB_CONDITION_INVERT */
	__u32 number; /* PERCENT */
	__u32 name_page;
	__u16 name_offset;
	__u16 name_bytes;
	__u32 value_page;
	__u16 value_offset;
	__u16 value_bytes;
	__u32 needle; /* CONTAINS: in the needle table; 0: searched for by itself */
	__u32 reserved1;
};
_Static_assert(sizeof(struct xlb_condition) == 32, "a power of two");

/* Weighted clusters of a route: the first whose `cumulative` is above the drawn number. */
struct xlb_target {
	__u32 cumulative;
	__u32 cluster; /* slot */
};
_Static_assert(sizeof(struct xlb_target) == 8, "a power of two");

/* --- Clusters -------------------------------------------------------------------- */

enum xlb_lb {
	XLB_LB_ROUND_ROBIN = 0,
	XLB_LB_RANDOM = 1,
	XLB_LB_LEAST_REQUEST = 2,
	/* By a hash of the request, see XLB_POINT(); without one as RANDOM. */
	XLB_LB_RING_HASH = 3, /* struct xlb_point */
	XLB_LB_MAGLEV = 4, /* __u16: endpoints, by position */
};

/* Where a request with that hash falls on the ring, and by what it is divided for a place in the Maglev table. */
#define XLB_POINT(hash) xlb_mix(hash)

static inline __u64 xlb_mix(__u64 hash)
{
	/* FNV-1a leaves similar strings near each other in the high bits. */
	hash ^= hash >> 33;
	hash *= 0xff51afd7ed558ccdull;
	hash ^= hash >> 33;
	hash *= 0xc4ceb9fe1a85ec53ull;
	return hash ^ hash >> 33;
}

/* In ascending order: requests from the point before this one to this one, and behind the last one those of the first. */
struct xlb_point {
	__u32 at; /* the high half of XLB_POINT() */
	__u32 endpoint; /* position */
};
_Static_assert(sizeof(struct xlb_point) == 8, "a power of two");

/* At the beginning of a cluster's blob; its endpoints are records XLB_FIRST_ENDPOINT and on. */
struct xlb_cluster {
	__u64 generation; /* that wrote it */
	__u32 number;
	__u32 lb; /* enum xlb_lb */
	__u32 choices; /* least_request: 0 = look at all; ring_hash and maglev: records in the table */
	__u32 endpoint_count; /* only those that may be picked */
	__u32 total_weight; /* reduced by the weights' greatest common divisor */
	/* Coprime to total_weight, near total_weight / golden ratio: walking the weights in this
	 * stride is exact over total_weight picks and spreads each endpoint's picks evenly.
	 * ring_hash and maglev: the page that the table begins with. */
	__u32 stride;
	__u32 equal; /* all weights are the same: position = endpoint */
	/* As struct xlb_pool_limits. */
	__u32 min_idle;
	__u32 max;
	__u32 max_pending;
	__u32 idle_timeout_ms;
	__u32 connect_timeout_ms;
	__u32 max_requests;
	__u32 pending_timeout_ms;
};
_Static_assert(sizeof(struct xlb_cluster) == 64, "two records of its endpoints");

#define XLB_FIRST_ENDPOINT 2

struct xlb_endpoint {
	__u8 addr[16]; /* network order; IPv4 as ::ffff:a.b.c.d */
	__u32 number;
	__u32 weight; /* reduced, never 0 */
	__u32 cumulative;
	__u16 port; /* host order */
	__u16 reserved0;
};
_Static_assert(sizeof(struct xlb_endpoint) == 32, "a power of two");

/* --- Other maps -------------------------------------------------------------------- */

struct xlb_vip_key {
	__u32 addr[4]; /* network order; IPv4 as ::ffff:a.b.c.d */
	__u32 port; /* network order, in the low half, as struct bpf_sock_addr has it */
};
_Static_assert(sizeof(struct xlb_vip_key) == 20, "a hash key: no padding");

#define XLB_VIP_EMPTY 0x1 /* no cluster of the service has an endpoint: connects are refused */

struct xlb_vip {
	__u32 service; /* slot */
	__u32 cgroup_levels; /* 0: every cgroup; else look at the ancestors at levels 0..n-1 */
	__u32 flags; /* XLB_VIP_* */
};
_Static_assert(sizeof(struct xlb_vip) == 12, "written by xlbctl of the same layout");

struct xlb_cgroup_key {
	__u64 cgroup_id;
	__u32 service;
	__u32 reserved0;
};
_Static_assert(sizeof(struct xlb_cgroup_key) == 16, "a hash key: no padding");

/* What the connect programs count, per CPU. */
enum xlb_connect_count {
	XLB_CONNECT_ACCEPTED = 0,
	XLB_CONNECT_REFUSED = 1, /* the module left the socket plain TCP */
	XLB_CONNECT_OTHER_CGROUP = 2, /* to a VIP, from a cgroup that is not served */
	XLB_CONNECT_NO_ENDPOINT = 3, /* refused: there is no endpoint */
	XLB_CONNECT_NO_MEMORY = 4, /* refused: ENOMEM */
	XLB_CONNECT_COUNTS = 5,
};

/* Slots of the map that has the applied document. */
#define XLB_DOCUMENT_APPLIED 0
#define XLB_DOCUMENT_PENDING 1 /* the same, from the beginning of its apply to the end */
#define XLB_DOCUMENT_SLOTS 2

/* State shared by all CPUs, by number. */
struct xlb_state {
	__u64 position; /* clusters: round robin */
	__u64 load; /* endpoints: picked by least_request and not done */
	/* Of the configuration that gave the number to its item: what was decided before is
	 * another item's. */
	__u64 generation;
	__u64 reserved0[5];
};
_Static_assert(sizeof(struct xlb_state) == 64, "a cache line");

/* Counters per CPU, by number; what they mean is the same for a service, route, cluster and endpoint. */
#define XLB_STATS(X)                                                              \
	X(requests, "requests that were given to it")                             \
	X(errors, "of them answered by XLB, not by an endpoint")                  \
	X(status_4xx, "responses with status 400 to 499 from endpoints")          \
	X(status_5xx, "responses with status 500 to 599 from endpoints")          \
	X(request_bytes, "bytes of requests sent to endpoints")                   \
	X(response_bytes, "bytes of responses from endpoints")                    \
	X(latency_ns, "sum over requests of the time to the end of the response") \
	X(retries, "requests sent again after a dead connection")

struct xlb_stats {
#define X(name, text) __u64 name;
	XLB_STATS(X)
#undef X
	__u64 picked; /* endpoints; less those that are done, requests and retries: outstanding */
};
_Static_assert(sizeof(struct xlb_stats) == 72, "nine counters");

#endif /* XLB_BLOB_H */
