// SPDX-License-Identifier: GPL-2.0
/*
 * What BPF sees of XLB: the struct_ops type `xlb_policy` and the kfuncs.
 *
 * C because BTF is made from it.  The attached policy is one RCU pointer: calls
 * run inside rcu_read_lock(), unreg() and update() wait for readers before the
 * struct_ops map may go.  Writers are serialised by policy_mutex.
 */
#include <linux/bpf.h>
#include <linux/bpf_verifier.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <net/sock.h>

#include "xlb_shim.h"
#include "xlb_proto.h"

/* The policy as BPF programs implement it; see xlb_intf.h. */
struct xlb_policy {
	int (*route)(struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec);
	int (*pick)(struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec);
	void (*done)(struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec,
		     struct xlb_result *res);
	__u32 abi;
	char name[16];
};

static DEFINE_MUTEX(policy_mutex);
static struct xlb_policy __rcu *policy;

/* The module's own BTF, from init(); only compared, never followed. */
static const struct btf *module_btf;

/*
 * struct xlb_decision in it.  Modules cannot look a type up by its name (btf_find_by_name_kind() is not exported):
 * so it is read off the first program that takes its argument, before which none can write to it.
 */
static u32 decision_id;

const struct xlb_reply_row xlb_replies[XLB_REASON_COUNT] = {
#define X(upper, lower, status, text) [XLB_REASON_##upper] = { #lower, sizeof(#lower) - 1, status },
	XLB_REASONS(X)
#undef X
};

/* ---- calls from Rust -------------------------------------------------------- */

int xlb_policy_route(struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec)
{
	struct xlb_policy *p;
	int ret = XLB_REASON_NO_POLICY;

	rcu_read_lock();
	p = rcu_dereference(policy);
	if (p)
		ret = p->route(ex, req, dec);
	rcu_read_unlock();
	return ret;
}

int xlb_policy_pick(struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec)
{
	struct xlb_policy *p;
	int ret = XLB_REASON_NO_POLICY;

	rcu_read_lock();
	p = rcu_dereference(policy);
	if (p)
		ret = p->pick(ex, req, dec);
	rcu_read_unlock();
	return ret;
}

void xlb_policy_done(struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec,
		     struct xlb_result *res)
{
	struct xlb_policy *p;

	rcu_read_lock();
	p = rcu_dereference(policy);
	if (p)
		p->done(ex, req, dec, res);
	rcu_read_unlock();
}

void xlb_policy_describe(struct xlb_info *info)
{
	struct xlb_policy *p;

	rcu_read_lock();
	p = rcu_dereference(policy);
	if (p) {
		info->policy = 1;
		info->policy_abi = p->abi;
		memcpy(info->policy_name, p->name, sizeof(info->policy_name));
	}
	rcu_read_unlock();
}

/* `len` bytes at an offset of value `page`, or NULL when they are not in one value of the map. */
const void *xlb_actions_text(const struct xlb_actions *actions, __u32 page, __u32 off, __u32 len)
{
	const struct bpf_map *map = actions->map;
	const struct bpf_array *array = container_of(map, struct bpf_array, map);

	if (page >= map->max_entries || off > map->value_size || len > map->value_size - off)
		return NULL;
	return array->value + (u64)page * array->elem_size + off;
}

void xlb_actions_put(struct xlb_actions *actions)
{
	bpf_map_put(actions->map);
}

/* ---- struct_ops ------------------------------------------------------------- */

static int xlb_ops_init(struct btf *btf)
{
	module_btf = btf;
	return 0;
}

static bool xlb_ops_is_valid_access(int off, int size, enum bpf_access_type type,
				    const struct bpf_prog *prog, struct bpf_insn_access_aux *info)
{
	if (off < 0 || off >= sizeof(__u64) * MAX_BPF_FUNC_ARGS)
		return false;
	if (type != BPF_READ || off % size || !btf_ctx_access(off, size, type, prog, info))
		return false;
	/* The third argument of all programs. */
	if (off == 2 * sizeof(__u64))
		WRITE_ONCE(decision_id, info->btf_id);
	return true;
}

static int xlb_ops_struct_access(struct bpf_verifier_log *log, const struct bpf_reg_state *reg,
				 int off, int size)
{
	/* A policy may write anywhere into its decision, and nowhere else. */
	if (reg->btf != module_btf || reg->btf_id != READ_ONCE(decision_id)) {
		bpf_log(log, "xlb: only struct xlb_decision may be written\n");
		return -EACCES;
	}
	if (off < 0 || off + size > sizeof(struct xlb_decision)) {
		bpf_log(log, "xlb: write beyond struct xlb_decision\n");
		return -EACCES;
	}
	return 0;
}

static const struct bpf_func_proto *xlb_ops_func_proto(enum bpf_func_id id,
						       const struct bpf_prog *prog)
{
	return bpf_base_func_proto(id, prog);
}

static const struct bpf_verifier_ops xlb_verifier_ops = {
	.is_valid_access = xlb_ops_is_valid_access,
	.btf_struct_access = xlb_ops_struct_access,
	.get_func_proto = xlb_ops_func_proto,
};

static int xlb_ops_check_member(const struct btf_type *t, const struct btf_member *member,
				const struct bpf_prog *prog)
{
	/* Called inside rcu_read_lock(). */
	return prog->sleepable ? -EINVAL : 0;
}

static int xlb_ops_init_member(const struct btf_type *t, const struct btf_member *member,
			       void *kdata, const void *udata)
{
	const struct xlb_policy *from = udata;
	struct xlb_policy *to = kdata;

	switch (__btf_member_bit_offset(t, member) / 8) {
	case offsetof(struct xlb_policy, abi):
		to->abi = from->abi;
		return 1;
	case offsetof(struct xlb_policy, name):
		if (bpf_obj_name_cpy(to->name, from->name, sizeof(to->name)) <= 0)
			return -EINVAL;
		return 1;
	}
	return 0;
}

static int xlb_ops_validate(void *kdata)
{
	const struct xlb_policy *p = kdata;

	if (p->abi < XLB_ABI_OLDEST || p->abi > XLB_ABI) {
		pr_warn("xlb: policy of ABI %u refused, this module takes %u to %u\n", p->abi,
			XLB_ABI_OLDEST, XLB_ABI);
		return -EPROTO;
	}
	return p->route && p->pick && p->done ? 0 : -EINVAL;
}

static int xlb_ops_reg(void *kdata, struct bpf_link *link)
{
	int err = 0;

	mutex_lock(&policy_mutex);
	if (rcu_access_pointer(policy))
		err = -EEXIST;
	else
		rcu_assign_pointer(policy, kdata);
	mutex_unlock(&policy_mutex);
	return err;
}

static void xlb_ops_unreg(void *kdata, struct bpf_link *link)
{
	mutex_lock(&policy_mutex);
	if (rcu_access_pointer(policy) == kdata)
		RCU_INIT_POINTER(policy, NULL);
	mutex_unlock(&policy_mutex);
	synchronize_rcu();
}

static int xlb_ops_update(void *kdata, void *old_kdata, struct bpf_link *link)
{
	int err = 0;

	mutex_lock(&policy_mutex);
	if (rcu_access_pointer(policy) == old_kdata)
		rcu_assign_pointer(policy, kdata);
	else
		err = -ESTALE;
	mutex_unlock(&policy_mutex);
	if (!err)
		synchronize_rcu();
	return err;
}

static int xlb_policy__route(struct xlb_exchange *ex, struct xlb_request *req,
			     struct xlb_decision *dec)
{
	return XLB_REASON_NO_POLICY;
}

static int xlb_policy__pick(struct xlb_exchange *ex, struct xlb_request *req,
			    struct xlb_decision *dec)
{
	return XLB_REASON_NO_POLICY;
}

static void xlb_policy__done(struct xlb_exchange *ex, struct xlb_request *req,
			     struct xlb_decision *dec, struct xlb_result *res)
{
}

static struct xlb_policy xlb_policy_stubs = {
	.route = xlb_policy__route,
	.pick = xlb_policy__pick,
	.done = xlb_policy__done,
};

static struct bpf_struct_ops bpf_xlb_policy = {
	.verifier_ops = &xlb_verifier_ops,
	.init = xlb_ops_init,
	.check_member = xlb_ops_check_member,
	.init_member = xlb_ops_init_member,
	.validate = xlb_ops_validate,
	.reg = xlb_ops_reg,
	.unreg = xlb_ops_unreg,
	.update = xlb_ops_update,
	.cfi_stubs = &xlb_policy_stubs,
	.name = "xlb_policy",
	.owner = THIS_MODULE,
};

/* ---- kfuncs ------------------------------------------------------------------- */

/* Whether off_len, an XLB_OFF_LEN(), lies in a buffer of `size` bytes. */
static bool is_in(__u64 off_len, __u32 size)
{
	__u32 off = off_len >> 32, len = off_len;

	return off <= size && len <= size - off;
}

/* The table that begins with value `page` of an array map; NULL when it is not in there. */
static const void *table_in(struct bpf_map *map, __u32 page, __u32 count, __u32 size)
{
	struct bpf_array *array = container_of(map, struct bpf_array, map);

	/* As in array_map_lookup_elem(): the values lie one after the other. */
	if (map->map_type != BPF_MAP_TYPE_ARRAY || page >= map->max_entries ||
	    (u64)count * size > (u64)(map->max_entries - page) * array->elem_size)
		return NULL;
	return array->value + (u64)page * array->elem_size;
}

__bpf_kfunc_start_defs();

__bpf_kfunc int bpf_xlb_accept(struct bpf_sock_addr_kern *ctx, __u32 service)
{
	return xlb_attach(ctx->sk, service);
}

__bpf_kfunc __u64 bpf_xlb_hash(struct xlb_exchange *ex, __u32 field, __u32 from, __u32 to)
{
	return xlb_field_hash(ex, field, from, to);
}

__bpf_kfunc int bpf_xlb_find(struct xlb_exchange *ex, __u32 field, __u32 from, __u32 byte)
{
	return xlb_field_find(ex, field, from, byte);
}

__bpf_kfunc int bpf_xlb_len(struct xlb_exchange *ex, __u32 field)
{
	return xlb_field_len(ex, field);
}

__bpf_kfunc int bpf_xlb_equal(struct xlb_exchange *ex, __u64 field_from, const void *buf,
			      __u32 buf__sz, __u64 off_len)
{
	if (!is_in(off_len, buf__sz))
		return 0;
	return xlb_field_equal(ex, field_from >> 32, field_from, buf + (off_len >> 32), off_len);
}

__bpf_kfunc int bpf_xlb_contains(struct xlb_exchange *ex, __u64 field_from, const void *buf,
				 __u32 buf__sz, __u64 off_len)
{
	if (!is_in(off_len, buf__sz))
		return 0;
	return xlb_field_contains(ex, field_from >> 32, field_from, buf + (off_len >> 32), off_len);
}

__bpf_kfunc int bpf_xlb_in_range(struct xlb_exchange *ex, __u32 field, const void *buf,
				 __u32 buf__sz, __u64 off_len)
{
	if (!is_in(off_len, buf__sz))
		return 0;
	return xlb_field_in_range(ex, field, buf + (off_len >> 32), off_len);
}

__bpf_kfunc int bpf_xlb_needles(struct xlb_exchange *ex, __u32 count)
{
	return xlb_field_needles(ex, count);
}

__bpf_kfunc int bpf_xlb_search(struct xlb_exchange *ex, __u32 field, void *pages__map,
			       const struct xlb_needle *needle)
{
	/* What is in a map may change at any time. */
	struct xlb_needle n = {
		.state_count = READ_ONCE(needle->state_count),
		.shorter_count = READ_ONCE(needle->shorter_count),
		.root = READ_ONCE(needle->root),
		.searched = READ_ONCE(needle->searched),
		.needle = READ_ONCE(needle->needle),
	};
	const void *states, *shorter;

	states = table_in(pages__map, READ_ONCE(needle->state_page), n.state_count,
			  sizeof(struct xlb_search_state));
	shorter = table_in(pages__map, READ_ONCE(needle->shorter_page), n.shorter_count,
			   sizeof(__u32));
	if (!states || !shorter)
		return -EINVAL;
	return xlb_field_search(ex, field, &n, states, shorter);
}

__bpf_kfunc int bpf_xlb_match(struct xlb_exchange *ex, __u32 field, void *pages__map,
			      const struct xlb_regex *regex)
{
	/* As in bpf_xlb_search(). */
	struct xlb_regex r = {
		.state_count = READ_ONCE(regex->state_count),
		.stride = READ_ONCE(regex->stride),
		.start = READ_ONCE(regex->start),
		.match_count = READ_ONCE(regex->match_count),
		.searched = READ_ONCE(regex->searched),
		.needle = READ_ONCE(regex->needle),
	};
	const void *classes, *states, *matches;

	classes = table_in(pages__map, READ_ONCE(regex->class_page), 256, sizeof(__u8));
	states = table_in(pages__map, READ_ONCE(regex->state_page), r.state_count, sizeof(__u16));
	matches = table_in(pages__map, READ_ONCE(regex->match_page), r.match_count, sizeof(__u32));
	if (!classes || !states || !matches)
		return -EINVAL;
	return xlb_field_match(ex, field, &r, classes, states, matches);
}

__bpf_kfunc int bpf_xlb_fields(struct xlb_exchange *ex, __u32 kinds)
{
	return xlb_field_want(ex, kinds);
}

__bpf_kfunc int bpf_xlb_want(struct xlb_exchange *ex, __u32 kind, const void *buf, __u32 buf__sz,
			     __u64 off_len)
{
	if (!is_in(off_len, buf__sz))
		return -EINVAL;
	return xlb_field_want_named(ex, kind, buf + (off_len >> 32), off_len);
}

__bpf_kfunc int bpf_xlb_named(struct xlb_exchange *ex, __u32 kind, const void *buf, __u32 buf__sz,
			      __u64 off_len)
{
	if (!is_in(off_len, buf__sz))
		return -ENOENT;
	return xlb_field_named(ex, kind, buf + (off_len >> 32), off_len);
}

__bpf_kfunc int bpf_xlb_act(struct xlb_exchange *ex, void *pages__map, __u32 first, __u32 count,
			    __u32 bytes)
{
	struct bpf_map *map = pages__map;
	struct xlb_actions actions = { .count = count, .bytes = bytes };
	struct bpf_array *array = container_of(map, struct bpf_array, map);
	u64 size, from = (u64)first * bytes;

	if (map->map_type != BPF_MAP_TYPE_ARRAY || count > XLB_MAX_ACTIONS ||
	    bytes < sizeof(struct xlb_action))
		return -EINVAL;
	size = (u64)map->max_entries * array->elem_size;
	if (from > size || (u64)count * bytes > size - from)
		return -EINVAL;
	/* RCU keeps its memory; who took it out of its slot may have let go of it already. */
	if (IS_ERR(bpf_map_inc_not_zero(map)))
		return -EAGAIN;
	actions.map = map;
	actions.first = array->value + from;
	xlb_act(ex, &actions);
	return 0;
}

__bpf_kfunc int bpf_xlb_ctl(struct xlb_ctl *ctl, __u32 ctl__sz, void *buf, __u32 buf__sz)
{
	struct xlb_ctl known = {};
	int err;

	/*
	 * A BPF token may let a user namespace load and run programs; that is no right over
	 * the sockets of the whole host.
	 */
	if (!capable(CAP_NET_ADMIN) || !capable(CAP_BPF))
		return -EPERM;
	/* BPF gives each call its own memory. */
	memcpy(&known, ctl, min_t(__u32, ctl__sz, sizeof(known)));
	err = xlb_control(&known, buf, buf__sz);
	memcpy(ctl, &known, min_t(__u32, ctl__sz, sizeof(known)));
	return err;
}

__bpf_kfunc_end_defs();

/* Trusted arguments are the only kind since 7.0, and the flag is gone. */
#ifdef KF_TRUSTED_ARGS
#define XLB_KF_TRUSTED KF_TRUSTED_ARGS
#else
#define XLB_KF_TRUSTED 0
#endif

BTF_KFUNCS_START(xlb_connect_kfuncs)
BTF_ID_FLAGS(func, bpf_xlb_accept, XLB_KF_TRUSTED)
BTF_KFUNCS_END(xlb_connect_kfuncs)

BTF_KFUNCS_START(xlb_policy_kfuncs)
BTF_ID_FLAGS(func, bpf_xlb_hash, XLB_KF_TRUSTED)
BTF_ID_FLAGS(func, bpf_xlb_find, XLB_KF_TRUSTED)
BTF_ID_FLAGS(func, bpf_xlb_len, XLB_KF_TRUSTED)
BTF_ID_FLAGS(func, bpf_xlb_equal, XLB_KF_TRUSTED)
BTF_ID_FLAGS(func, bpf_xlb_contains, XLB_KF_TRUSTED)
BTF_ID_FLAGS(func, bpf_xlb_in_range, XLB_KF_TRUSTED)
BTF_ID_FLAGS(func, bpf_xlb_needles, XLB_KF_TRUSTED)
BTF_ID_FLAGS(func, bpf_xlb_search, XLB_KF_TRUSTED)
BTF_ID_FLAGS(func, bpf_xlb_match, XLB_KF_TRUSTED)
BTF_ID_FLAGS(func, bpf_xlb_fields, XLB_KF_TRUSTED)
BTF_ID_FLAGS(func, bpf_xlb_want, XLB_KF_TRUSTED)
BTF_ID_FLAGS(func, bpf_xlb_named, XLB_KF_TRUSTED)
BTF_ID_FLAGS(func, bpf_xlb_act, XLB_KF_TRUSTED)
BTF_KFUNCS_END(xlb_policy_kfuncs)

BTF_KFUNCS_START(xlb_control_kfuncs)
BTF_ID_FLAGS(func, bpf_xlb_ctl, KF_SLEEPABLE)
BTF_KFUNCS_END(xlb_control_kfuncs)

static const struct btf_kfunc_id_set connect_set = { .owner = THIS_MODULE,
						     .set = &xlb_connect_kfuncs };
static const struct btf_kfunc_id_set policy_set = { .owner = THIS_MODULE,
						    .set = &xlb_policy_kfuncs };
static const struct btf_kfunc_id_set control_set = { .owner = THIS_MODULE,
						     .set = &xlb_control_kfuncs };

int xlb_policy_init(void)
{
	int err;

	/* Without BTF the registrations below only warn, and nothing would work. */
	if (!THIS_MODULE->btf_data_size) {
		pr_err("xlb: this module was built without BTF, or the kernel has no CONFIG_DEBUG_INFO_BTF_MODULES\n");
		return -ENOEXEC;
	}
	err = register_btf_kfunc_id_set(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, &connect_set);
	if (!err)
		err = register_btf_kfunc_id_set(BPF_PROG_TYPE_STRUCT_OPS, &policy_set);
	if (!err)
		err = register_btf_kfunc_id_set(BPF_PROG_TYPE_SYSCALL, &control_set);
	if (!err)
		err = register_bpf_struct_ops(&bpf_xlb_policy, xlb_policy);
	if (err)
		pr_err("xlb: BPF registration failed (%d): is the BTF of module and kernel of one build?\n",
		       err);
	return err;
}
