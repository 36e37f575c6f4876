// SPDX-License-Identifier: GPL-2.0
/*
 * Which connect() is to a service.
 *
 * The kernel calls these programs in connect() of any socket of the cgroup they
 * are attached to (the root: all), before it chooses the protocol's own connect, with the
 * socket locked.  A connect to anything else costs one map lookup.
 */
#include "vmlinux.h"
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "../kmod/include/xlb_intf.h"
#include "blob.h"
#include "kfuncs.h"

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, XLB_MAX_VIPS);
	__type(key, struct xlb_vip_key);
	__type(value, struct xlb_vip);
} vips SEC(".maps");

/* Which cgroups a service serves, where it does not serve all. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, XLB_MAX_VIPS);
	__type(key, struct xlb_cgroup_key);
	__type(value, __u8);
} cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XLB_CONNECT_COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} connects SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&connects, &which);

	if (n)
		__sync_fetch_and_add(n, 1);
}

/* Is the caller in a cgroup that the service serves, or below one? */
static __noinline bool is_served(struct xlb_vip *vip)
{
	struct xlb_cgroup_key key = { .service = vip->service };
	__u32 levels = vip->cgroup_levels;
	int level;

	if (levels > XLB_MAX_CGROUP_LEVEL)
		levels = XLB_MAX_CGROUP_LEVEL;
	bpf_for(level, 0, levels) {
		key.cgroup_id = bpf_get_current_ancestor_cgroup_id(level);
		if (!key.cgroup_id)
			break;
		if (bpf_map_lookup_elem(&cgroups, &key))
			return true;
	}
	return false;
}

/*
 * 0 refuses the connect: where there is no endpoint at all nobody listens, and without memory
 * the program may try again.  Any other socket that the module cannot take stays plain TCP,
 * which finds no one at a VIP; `refused` makes it visible.
 */
static __always_inline int connect_to(struct bpf_sock_addr *ctx, struct xlb_vip_key *key)
{
	struct xlb_vip *vip = bpf_map_lookup_elem(&vips, key);
	int err;

	if (!vip)
		return 1;
	if (ctx->type != SOCK_STREAM || ctx->protocol != IPPROTO_TCP)
		return 1;
	if (vip->cgroup_levels && !is_served(vip)) {
		count(XLB_CONNECT_OTHER_CGROUP);
		return 1;
	}
	if (vip->flags & XLB_VIP_EMPTY) {
		count(XLB_CONNECT_NO_ENDPOINT);
		/* The program's 0 alone would mean EPERM. */
		bpf_set_retval(-ECONNREFUSED);
		return 0;
	}
	/* The kernel gives it out when it is asked for: SO_COOKIE, by which sockets are listed. */
	bpf_get_socket_cookie(ctx);
	err = bpf_xlb_accept(bpf_cast_to_kern_ctx(ctx), vip->service);
	/* Not left to TCP: to a program that may try again, the VIP must not look unreachable. */
	if (err == -ENOMEM) {
		count(XLB_CONNECT_NO_MEMORY);
		bpf_set_retval(-ENOMEM);
		return 0;
	}
	count(err ? XLB_CONNECT_REFUSED : XLB_CONNECT_ACCEPTED);
	return 1;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct xlb_vip_key key = {
		.addr = { 0, 0, bpf_htonl(0xffff), ctx->user_ip4 },
		.port = ctx->user_port,
	};

	return connect_to(ctx, &key);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct xlb_vip_key key = {
		.addr = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] },
		.port = ctx->user_port,
	};

	return connect_to(ctx, &key);
}
