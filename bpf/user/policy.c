// SPDX-License-Identifier: GPL-2.0
/*
 * The policy as a part of xlbctl: the very program that the kernel runs, compiled for user space.
 *
 * `xlbctl explain` asks it, and so do tests: there is no second text of what a route
 * matches.  The headers beside this file stand in for libbpf's; maps, random numbers and the
 * module's kfuncs are in control/src/policy/.  What only the verifier asks for is empty here.
 */
/* For relocations, which user space has none of. */
#define preserve_access_index

#include "../policy.bpf.c"

#define CONTEXT(...) ((unsigned long long[4]){ __VA_ARGS__ })
#define ARGUMENT(pointer) ((unsigned long long)(pointer))
#define ARGUMENTS ARGUMENT(ex), ARGUMENT(req)

/* The programs, called as the module calls them. */

int xlb_user_route(struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec)
{
	return route(CONTEXT(ARGUMENTS, ARGUMENT(dec)), ex, req, dec);
}

int xlb_user_pick(struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec)
{
	return pick(CONTEXT(ARGUMENTS, ARGUMENT(dec)), ex, req, dec);
}

void xlb_user_done(struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec,
		   struct xlb_result *res)
{
	done(CONTEXT(ARGUMENTS, ARGUMENT(dec), ARGUMENT(res)), ex, req, dec, res);
}

/* Parts of route(), for `explain`. */

/* The index of the virtual host, or XLB_NONE. */
__u32 xlb_user_vhost(struct xlb_exchange *ex, struct xlb_request *req)
{
	struct xlb_blob *head;

	return blob_now(req, &head) ? find_vhost(CONTEXT(ARGUMENTS), head) : XLB_NONE;
}

/* Does the condition at `index` hold?  After xlb_user_route(), which asks for what that needs. */
int xlb_user_condition(struct xlb_exchange *ex, struct xlb_request *req, __u32 index)
{
	struct xlb_decision dec = {};
	struct xlb_blob *head;

	return blob_now(req, &head) &&
	       condition_holds(CONTEXT(ARGUMENTS, ARGUMENT(&dec)), head->generation, index);
}
