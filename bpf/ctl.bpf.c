// SPDX-License-Identifier: GPL-2.0
/*
 * xlbctl's way to the module: it runs this program with BPF_PROG_TEST_RUN, the kernel
 * copies the context in and out, and may sleep.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#include "../kmod/include/xlb_intf.h"
#include "ctl.h"
#include "kfuncs.h"

char LICENSE[] SEC("license") = "GPL";

SEC("syscall")
int control(struct xlb_ctl_call *call)
{
	return bpf_xlb_ctl(&call->ctl, sizeof(call->ctl), call->buf, sizeof(call->buf));
}
