/* SPDX-License-Identifier: GPL-2.0 */
/* The module's kfuncs, as xlb_intf.h describes them, and the kernel's own that are used. */
#ifndef XLB_KFUNCS_H
#define XLB_KFUNCS_H

/* As in the kernel's errno-base.h. */
#define EAGAIN 11

extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym;

extern int bpf_xlb_accept(struct bpf_sock_addr_kern *ctx, __u32 service) __ksym;

extern __u64 bpf_xlb_hash(struct xlb_exchange *ex, __u32 field, __u32 from, __u32 to) __ksym;
extern int bpf_xlb_find(struct xlb_exchange *ex, __u32 field, __u32 from, __u32 byte) __ksym;
extern int bpf_xlb_len(struct xlb_exchange *ex, __u32 field) __ksym;
extern int bpf_xlb_equal(struct xlb_exchange *ex, __u64 field_from, const void *buf, __u32 buf__sz,
			 __u64 off_len) __ksym;
extern int bpf_xlb_contains(struct xlb_exchange *ex, __u64 field_from, const void *buf,
			    __u32 buf__sz, __u64 off_len) __ksym;
extern int bpf_xlb_in_range(struct xlb_exchange *ex, __u32 field, const void *buf, __u32 buf__sz,
			    __u64 off_len) __ksym;
extern int bpf_xlb_needles(struct xlb_exchange *ex, __u32 count) __ksym;
extern int bpf_xlb_search(struct xlb_exchange *ex, __u32 field, void *pages__map,
			  const struct xlb_needle *needle) __ksym;
extern int bpf_xlb_match(struct xlb_exchange *ex, __u32 field, void *pages__map,
			 const struct xlb_regex *regex) __ksym;
extern int bpf_xlb_fields(struct xlb_exchange *ex, __u32 kinds) __ksym;
extern int bpf_xlb_want(struct xlb_exchange *ex, __u32 kind, const void *buf, __u32 buf__sz,
			__u64 off_len) __ksym;
extern int bpf_xlb_named(struct xlb_exchange *ex, __u32 kind, const void *buf, __u32 buf__sz,
			 __u64 off_len) __ksym;
extern int bpf_xlb_act(struct xlb_exchange *ex, void *pages__map, __u32 first, __u32 count,
		       __u32 bytes) __ksym;

extern int bpf_xlb_ctl(struct xlb_ctl *ctl, __u32 ctl__sz, void *buf, __u32 buf__sz) __ksym;

#endif /* XLB_KFUNCS_H */
