/* SPDX-License-Identifier: GPL-2.0 */
/* What libbpf's header of this name gives the policy, for a program of user space: see ../policy.c. */
#ifndef XLB_USER_BPF_HELPERS_H
#define XLB_USER_BPF_HELPERS_H

#define SEC(name)
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]

#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __ksym
#define __arg_ctx
#define __arg_nonnull

#define barrier_var(var) asm volatile("" : "+r"(var))

#define bpf_for(i, start, end) for ((i) = (start); (i) < (int)(end); (i)++)

/* In Rust, control/src/policy/; and not by these names, of which libbpf has one. */
#define bpf_map_lookup_elem xlb_user_lookup
#define bpf_get_prandom_u32 xlb_user_draw
void *xlb_user_lookup(void *map, const void *key);
__u32 xlb_user_draw(void);

#endif /* XLB_USER_BPF_HELPERS_H */
