/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel types that the BPF programs use, and no more.
 *
 * A full dump of one kernel's BTF would be 100,000 lines of which ten matter.
 * What is here is either part of the kernel's user-space ABI (map types and
 * flags, struct bpf_sock_addr), or opaque to the programs; all else comes from
 * xlb_intf.h.
 */
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;

typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
};

enum {
	BPF_F_NO_PREALLOC = 1U << 0,
	/* An inner map of any number of entries. */
	BPF_F_MMAPABLE = 1U << 10,
	BPF_F_INNER_MAP = 1U << 12,
};

/* asm-generic/errno-base.h, errno.h */
#define ENOMEM 12
#define ECONNREFUSED 111

#define SOCK_STREAM 1
#define IPPROTO_TCP 6

/* linux/bpf.h: the context of cgroup/connect4 and cgroup/connect6. */
struct bpf_sock;

struct bpf_sock_addr {
	__u32 user_family;
	__u32 user_ip4; /* network order */
	__u32 user_ip6[4]; /* network order */
	__u32 user_port; /* network order */
	__u32 family;
	__u32 type;
	__u32 protocol;
	__u32 msg_src_ip4;
	__u32 msg_src_ip6[4];
	union {
		struct bpf_sock *sk;
		__u64 : 64;
	} __attribute__((aligned(8)));
};

/*
 * What bpf_cast_to_kern_ctx() makes of it; only handed on.  libbpf compares the kinds of
 * a kfunc's argument types, and a mere declaration is not a struct to it.
 */
struct sock;

struct bpf_sock_addr_kern {
	struct sock *sk;
} __attribute__((preserve_access_index));

/* The state of bpf_for(). */
struct bpf_iter_num {
	__u64 __opaque[1];
} __attribute__((aligned(8)));

#endif /* __VMLINUX_H__ */
