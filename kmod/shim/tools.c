// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel's macros and inline functions give to all levels of the module: locks, RCU, time, memory, work, counters.
 */
#include <linux/memcontrol.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <net/sock.h>

#include "xlb_shim.h"
#include "xlb_proto.h"

/* ---- locks, RCU, time ------------------------------------------------------- */

static struct lock_class_key lock_keys[XLB_LOCK_CLASSES];
static const char *const lock_names[XLB_LOCK_CLASSES] = {
	[XLB_LOCK_POOL] = "xlb_pool",	     [XLB_LOCK_STRIPE] = "xlb_pool_stripe",
	[XLB_LOCK_TABLE] = "xlb_pool_table", [XLB_LOCK_DEAD] = "xlb_dead",
	[XLB_LOCK_ORPHANS] = "xlb_orphans",  [XLB_LOCK_IDENTITIES] = "xlb_identities",
};

void xlb_spin_init(void *lock, unsigned int class_nr)
{
	spinlock_t *l = lock;

	static_assert(sizeof(spinlock_t) <= XLB_SPIN_BYTES);
	spin_lock_init(l);
	lockdep_set_class_and_name(l, &lock_keys[class_nr], lock_names[class_nr]);
}

void xlb_spin_lock_bh(void *lock)
{
	spin_lock_bh((spinlock_t *)lock);
}

void xlb_spin_unlock_bh(void *lock)
{
	spin_unlock_bh((spinlock_t *)lock);
}

void xlb_rcu_read_lock(void)
{
	rcu_read_lock();
}

void xlb_rcu_read_unlock(void)
{
	rcu_read_unlock();
}

void xlb_synchronize_rcu(void)
{
	synchronize_rcu();
}

struct rcu_object {
	struct rcu_head rcu;
};

void xlb_kfree_rcu(void *object)
{
	struct rcu_object *o = object;

	static_assert(sizeof(struct rcu_object) <= 16);
	kfree_rcu(o, rcu);
}

/* ---- the list of p-sockets ---------------------------------------------------- */

/* Its nodes are charged to who connects: 9 bytes for a p-sock where they are full. */
void xlb_list_init(void *xarray)
{
	static struct lock_class_key key;
	struct xarray *list = xarray;

	xa_init_flags(list, XA_FLAGS_ALLOC | XA_FLAGS_ACCOUNT);
	/* One name among those of all xarrays would not say whose it is. */
	lockdep_set_class_and_name(&list->xa_lock, &key, "xlb_list");
}

void xlb_list_exit(void *xarray)
{
	WARN_ON(!xa_empty(xarray));
	xa_destroy(xarray);
}

int xlb_list_add(void *xarray, void *entry, __u32 *index)
{
	return xa_alloc(xarray, index, entry, xa_limit_32b, GFP_ATOMIC | __GFP_NOWARN);
}

void xlb_list_remove(void *xarray, __u32 index)
{
	xa_erase(xarray, index);
}

void *xlb_list_next(void *xarray, __u32 *index)
{
	unsigned long at = *index;
	void *entry = xa_find(xarray, &at, U32_MAX, XA_PRESENT);

	*index = at;
	return entry;
}

/* ---- memory that clients make us hold ---------------------------------------- */

static struct kmem_cache *xlb_psock_cache;

/* A cache of their own: kmalloc would round a p-sock up to 2 KiB. */
int xlb_psock_cache_init(__u32 size)
{
	xlb_psock_cache = kmem_cache_create(
		"xlb_psock", size, 0, SLAB_ACCOUNT | SLAB_HWCACHE_ALIGN | SLAB_NO_MERGE, NULL);
	return xlb_psock_cache ? 0 : -ENOMEM;
}

/* Waits for what kfree_rcu() still holds. */
void xlb_psock_cache_exit(void)
{
	kmem_cache_destroy(xlb_psock_cache);
}

/*
 * Inside pre_connect's RCU section, so atomic.  Such a charge passes over the limit of a
 * full cgroup; the struct sock, of which there is one for each p-sock, has not.
 */
void *xlb_psock_alloc(void)
{
	return kmem_cache_alloc(xlb_psock_cache, GFP_ATOMIC | __GFP_NOWARN);
}

/*
 * krealloc() for buffers, charged.  A cgroup that is full after reclaim gets NULL, which
 * becomes an error of the system call: a full buffer is no reason to kill a process.
 */
void *xlb_client_realloc(void *p, unsigned long size)
{
	if (!size) {
		kvfree(p);
		return NULL;
	}
	return kvrealloc(p, size, GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
}

/* Until xlb_charge_end() of what this returns, charges go to the cgroup of sk. */
void *xlb_charge_begin(struct sock *sk)
{
	return set_active_memcg(mem_cgroup_from_sk(sk));
}

void xlb_charge_end(void *before)
{
	set_active_memcg(before);
}

__u64 xlb_now_ns(void)
{
	return ktime_get_ns();
}

__u64 xlb_now_ms(void)
{
	return jiffies64_to_msecs(get_jiffies_64());
}

__u32 xlb_current_tgid(void)
{
	return task_tgid_nr(current);
}

__u64 xlb_random_u64(void)
{
	return get_random_u64();
}

unsigned int xlb_cpu(void)
{
	return raw_smp_processor_id();
}

unsigned int xlb_cpus(void)
{
	return nr_cpu_ids;
}

void xlb_smp_mb(void)
{
	smp_mb();
}

void xlb_cond_resched(void)
{
	cond_resched();
}

/* ---- work ------------------------------------------------------------------- */

/* Requests wait on this, so it must not wait for memory behind others. */
static struct workqueue_struct *xlb_wq;
/* One of its own: it closes connections, and many works of p-sockets must not delay that. */
static struct workqueue_struct *xlb_reaper_wq;

static void psock_work(struct work_struct *work)
{
	xlb_psock_work(to_delayed_work(work));
}

static void reaper_work(struct work_struct *work)
{
	xlb_reap();
}

static DECLARE_DELAYED_WORK(reaper, reaper_work);

int xlb_work_start(void)
{
	xlb_wq = alloc_workqueue("xlb", WQ_UNBOUND | WQ_MEM_RECLAIM | WQ_HIGHPRI, 0);
	if (!xlb_wq)
		return -ENOMEM;
	xlb_reaper_wq = alloc_workqueue("xlb_reaper", WQ_UNBOUND | WQ_MEM_RECLAIM, 1);
	if (xlb_reaper_wq)
		return 0;
	destroy_workqueue(xlb_wq);
	return -ENOMEM;
}

void xlb_work_stop(void)
{
	destroy_workqueue(xlb_reaper_wq);
	destroy_workqueue(xlb_wq);
}

void xlb_work_init(void *delayed_work)
{
	static_assert(sizeof(struct delayed_work) <= XLB_WORK_BYTES);
	INIT_DELAYED_WORK((struct delayed_work *)delayed_work, psock_work);
}

/*
 * msecs_to_jiffies() cuts down to 32 bits, and takes what is above INT_MAX for ever.  Who
 * waits longer is kicked before, and waits again.
 */
static unsigned long jiffies_of(__u64 ms)
{
	return msecs_to_jiffies(min_t(__u64, ms, INT_MAX));
}

void xlb_work_kick(void *delayed_work, __u64 delay_ms)
{
	mod_delayed_work(xlb_wq, delayed_work, jiffies_of(delay_ms));
}

void xlb_work_disable_sync(void *delayed_work)
{
	disable_delayed_work_sync(delayed_work);
}

void xlb_reaper_kick(__u64 delay_ms)
{
	if (delay_ms)
		queue_delayed_work(xlb_reaper_wq, &reaper, jiffies_of(delay_ms));
	else
		mod_delayed_work(xlb_reaper_wq, &reaper, 0);
}

void xlb_reaper_stop(void)
{
	disable_delayed_work_sync(&reaper);
}

/* ---- counters --------------------------------------------------------------- */

struct counters {
	__u64 counters[XLB_COUNTER_COUNT];
	__u64 reasons[XLB_REASON_COUNT];
	__u64 engine[XLB_ENGINE_REASONS];
};

static DEFINE_PER_CPU(struct counters, counters);

static const struct {
	const char *name;
	enum xlb_count_kind kind;
} rows[] = {
#define gauge XLB_COUNT_GAUGE
#define counter XLB_COUNT_COUNTER
#define X(upper, lower, kind, text) [XLB_COUNTER_##upper] = { #lower, kind },
	XLB_COUNTERS(X)
#undef X
#undef gauge
#undef counter
};

void xlb_counts_from(__u64 from)
{
	int i;

	for (i = 0; i < XLB_COUNTER_COUNT; i++)
		if (rows[i].kind == XLB_COUNT_COUNTER)
			this_cpu_add(counters.counters[i], from);
	for (i = 0; i < XLB_REASON_COUNT; i++)
		this_cpu_add(counters.reasons[i], from);
	for (i = 0; i < XLB_ENGINE_REASONS; i++)
		this_cpu_add(counters.engine[i], from);
}

void xlb_count(__u32 counter, __s64 n)
{
	if (counter < XLB_COUNTER_COUNT)
		this_cpu_add(counters.counters[counter], n);
}

void xlb_count_reason(__u32 reason)
{
	if (reason < XLB_REASON_COUNT)
		this_cpu_inc(counters.reasons[reason]);
}

void xlb_count_engine(__u32 reason)
{
	if (reason < XLB_ENGINE_REASONS)
		this_cpu_inc(counters.engine[reason]);
}

/* `at` is in the counters of one CPU. */
static __u64 sum(const __u64 __percpu *at)
{
	__u64 value = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		value += *per_cpu_ptr(at, cpu);
	return value;
}

__u32 xlb_counts(void)
{
	return XLB_COUNTER_COUNT + XLB_REASON_COUNT;
}

void xlb_count_read(__u32 index, struct xlb_count *count)
{
	if (index < XLB_COUNTER_COUNT) {
		count->value = sum(&counters.counters[index]);
		count->kind = rows[index].kind;
		strscpy(count->name, rows[index].name);
		return;
	}
	index -= XLB_COUNTER_COUNT;
	if (index >= XLB_REASON_COUNT)
		return;
	count->value = sum(&counters.reasons[index]);
	count->kind = XLB_COUNT_REASON;
	strscpy(count->name, xlb_replies[index].name);
}

__u64 xlb_engine_count(__u32 reason)
{
	return reason < XLB_ENGINE_REASONS ? sum(&counters.engine[reason]) : 0;
}
