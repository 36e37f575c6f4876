/* SPDX-License-Identifier: GPL-2.0 */
/* As bpf_helpers.h: a program gets its context, and what is in it. */
#ifndef XLB_USER_BPF_TRACING_H
#define XLB_USER_BPF_TRACING_H

#define BPF_PROG(name, args...) name(unsigned long long *ctx, args)

#endif /* XLB_USER_BPF_TRACING_H */
