// SPDX-License-Identifier: GPL-2.0
/* Wiring: what the other files prepare when the module is loaded, and undo when it goes.  They do not call this one. */
#include <linux/version.h>
#include <net/net_namespace.h>

#include "xlb_shim.h"
#include "xlb_proto.h"

static void __net_exit net_pre_exit(struct net *net)
{
	xlb_net_exit(net);
}

static struct pernet_operations xlb_net_ops = {
	.pre_exit = net_pre_exit,
};

/* The kernels that the tests run on. */
#define TESTED_FROM KERNEL_VERSION(7, 2, 0)
#define TESTED_BELOW KERNEL_VERSION(7, 4, 0)

int xlb_shim_init(void)
{
	int err;

	if (LINUX_VERSION_CODE < TESTED_FROM || LINUX_VERSION_CODE >= TESTED_BELOW)
		pr_notice("xlb: never tested on Linux %d.%d; tested are 7.2 and 7.3\n",
			  LINUX_VERSION_MAJOR, LINUX_VERSION_PATCHLEVEL);
	xlb_proto_init();
	err = xlb_work_start();
	if (err)
		return err;
	err = xlb_identity_init();
	if (err)
		goto err_work;
	err = register_pernet_subsys(&xlb_net_ops);
	if (err)
		goto err_identity;
	err = xlb_policy_init();
	if (err)
		goto err_net;
	return 0;

err_net:
	unregister_pernet_subsys(&xlb_net_ops);
err_identity:
	xlb_identity_exit();
err_work:
	xlb_work_stop();
	return err;
}

/*
 * Works of p-sockets may run until there is none, and the reaper until the pools are closed, which
 * is before this.
 */
void xlb_shim_exit(void)
{
	unregister_pernet_subsys(&xlb_net_ops);
	xlb_identity_exit();
	xlb_work_stop();
	xlb_proto_exit();
}
