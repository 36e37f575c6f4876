/* SPDX-License-Identifier: GPL-2.0 */
/* The argument of the control program, shared with xlbctl. */
#ifndef XLB_CTL_H
#define XLB_CTL_H

/* The kernel copies at most 65,535 bytes of context in and out. */
#define XLB_CTL_BYTES 61440

struct xlb_ctl_call {
	struct xlb_ctl ctl;
	__u8 buf[XLB_CTL_BYTES];
};

#endif /* XLB_CTL_H */
