// SPDX-License-Identifier: GPL-2.0
/*
 * Kernel macros and inline functions that Rust cannot call.
 *
 * One function each, without policy; the comments in xlb_shim.h say under which
 * lock.  Sockets here are p-socks (the application's) or i-socks (ours, made with
 * sock_create_kern(), which gives them a lockdep class of their own, so that
 * locking an i-sock inside a p-sock is no recursion).
 */
#include <linux/cgroup.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/memcontrol.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/sock_diag.h>
#include <linux/spinlock.h>
#include <linux/version.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>
#include <net/rps.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "xlb_shim.h"
#include "xlb_proto.h"

#ifdef CONFIG_HIGHMEM
#error "xlb_isk_peek() returns addresses of fragments that must stay mapped"
#endif

/* ---- sockets ---------------------------------------------------------------- */

void xlb_lock_sock(struct sock *sk)
{
	lock_sock(sk);
}

void xlb_release_sock(struct sock *sk)
{
	release_sock(sk);
}

/* As lock_sock_nested(), but for its sleep. */
static bool lock_or_defer(struct sock *sk, bool defer)
{
	bool owned;

	spin_lock_bh(&sk->sk_lock.slock);
	owned = sock_owned_by_user_nocheck(sk);
	if (!owned)
		sk->sk_lock.owned = 1;
	else if (defer)
		xlb_psock_defer(xlb_sk_psock(sk));
	spin_unlock_bh(&sk->sk_lock.slock);
	if (owned)
		return false;
	mutex_acquire(&sk->sk_lock.dep_map, 0, 1, _RET_IP_);
	return true;
}

/*
 * A socket that its owner holds is left to the owner, who finds out in release_cb, under the
 * same spinlock (as in MPTCP).
 */
int xlb_sk_lock_or_defer(struct sock *sk)
{
	return lock_or_defer(sk, true);
}

int xlb_sk_try_lock(struct sock *sk)
{
	return lock_or_defer(sk, false);
}

/* The socket has no owner any more: as tcp_close() does, but long before the end. */
void xlb_sk_orphan(struct sock *sk)
{
	sock_orphan(sk);
}

struct xlb_psock *xlb_sk_psock(const struct sock *sk)
{
	return (struct xlb_psock *)rcu_access_pointer(inet_csk(sk)->icsk_ulp_data);
}

/*
 * sk may have been freed, and be another socket by now.  struct socket is freed after a grace
 * period, and a file that we hold is that of a socket which is not being closed.
 */
struct file *xlb_sk_get_file(const struct sock *sk, const struct xlb_psock *psock)
{
	struct socket *sock = READ_ONCE(sk->sk_socket);
	struct file *file = sock ? get_file_active(&sock->file) : NULL;

	if (!file)
		return NULL;
	if (sock_from_file(file) == sock && READ_ONCE(sock->sk) == sk && xlb_sk_psock(sk) == psock)
		return file;
	fput(file);
	return NULL;
}

void xlb_put_file(struct file *file)
{
	fput(file);
}

int xlb_sk_state(const struct sock *sk)
{
	return inet_sk_state_load(sk);
}

unsigned int xlb_sk_shutdown(const struct sock *sk)
{
	return READ_ONCE(sk->sk_shutdown);
}

void xlb_sk_shut(struct sock *sk, unsigned int how)
{
	WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | how);
}

int xlb_sk_take_error(struct sock *sk)
{
	return sock_error(sk);
}

int xlb_sk_has_error(const struct sock *sk)
{
	return READ_ONCE(sk->sk_err) != 0;
}

void xlb_sk_set_error(struct sock *sk, int err)
{
	WRITE_ONCE(sk->sk_err, err);
}

int xlb_sk_resets_on_close(const struct sock *sk)
{
	return sock_flag(sk, SOCK_LINGER) && !sk->sk_lingertime;
}

void xlb_sk_data_ready(struct sock *sk)
{
	READ_ONCE(sk->sk_data_ready)(sk);
}

void xlb_sk_write_space(struct sock *sk)
{
	READ_ONCE(sk->sk_write_space)(sk);
}

void xlb_sk_state_change(struct sock *sk)
{
	READ_ONCE(sk->sk_state_change)(sk);
}

long xlb_sk_rcvtimeo(const struct sock *sk, int nonblock)
{
	return sock_rcvtimeo(sk, nonblock);
}

long xlb_sk_sndtimeo(const struct sock *sk, int nonblock)
{
	return sock_sndtimeo(sk, nonblock);
}

int xlb_sk_peek_offset(const struct sock *sk)
{
	return max(READ_ONCE(sk->sk_peek_off), 0);
}

/* As tcp_recvmsg_locked(): a peek moves the offset on, a read moves it back. */
void xlb_sk_peek_moved(struct sock *sk, int flags, int copied)
{
	if (flags & MSG_PEEK)
		sk_peek_offset_fwd(sk, copied);
	else
		sk_peek_offset_bwd(sk, copied);
}

int xlb_sk_rcvlowat(const struct sock *sk, int waitall, int len)
{
	return sock_rcvlowat(sk, waitall, len);
}

struct net *xlb_sk_net(const struct sock *sk)
{
	return sock_net(sk);
}

__u32 xlb_net_inum(const struct net *net)
{
	return net->ns.inum;
}

__u64 xlb_sk_cgroup_id(const struct sock *sk)
{
#ifdef CONFIG_SOCK_CGROUP_DATA
	return cgroup_id(sock_cgroup_ptr((struct sock_cgroup_data *)&sk->sk_cgrp_data));
#else
	return 0;
#endif
}

__u64 xlb_sk_cookie(struct sock *sk)
{
	return atomic64_read(&sk->sk_cookie);
}

void xlb_sk_peer(const struct sock *sk, __u8 addr[16], __u16 *port)
{
	struct in6_addr mapped;

#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6)
		mapped = sk->sk_v6_daddr;
	else
#endif
		ipv6_addr_set_v4mapped(sk->sk_daddr, &mapped);
	memcpy(addr, &mapped, 16);
	*port = ntohs(sk->sk_dport);
}

/* Whether a read can go on, whatever SO_RCVLOWAT says: some bytes may have been copied already. */
static bool can_read(const struct sock *sk, __u32 target)
{
	const struct xlb_psock *psock;
	bool ret;

	if (READ_ONCE(sk->sk_err) || (READ_ONCE(sk->sk_shutdown) & RCV_SHUTDOWN))
		return true;
	rcu_read_lock();
	psock = xlb_sk_psock(sk);
	/* One that was disconnected, or let go of, meanwhile finds out. */
	ret = !psock || xlb_psock_readable(psock, target) != 0;
	rcu_read_unlock();
	return ret;
}

int xlb_sk_wait_readable(struct sock *sk, long *timeo, __u32 target)
{
	DEFINE_WAIT_FUNC(wait, woken_wake_function);
	int rc;

	add_wait_queue(sk_sleep(sk), &wait);
	sk_set_bit(SOCKWQ_ASYNC_WAITDATA, sk);
	rc = sk_wait_event(sk, timeo, can_read(sk, target), &wait);
	sk_clear_bit(SOCKWQ_ASYNC_WAITDATA, sk);
	remove_wait_queue(sk_sleep(sk), &wait);
	return rc < 0 ? rc : 0;
}

int xlb_sk_wait_writable(struct sock *sk, long *timeo)
{
	/*
	 * TCP's own, with our stream_memory_free().  Where that says that there is room although
	 * nothing could be sent, an skb could not be had: this sleeps for a moment then.
	 */
	return sk_stream_wait_memory(sk, timeo);
}

int xlb_sk_send_error(struct sock *sk, int flags, int err)
{
	return sk_stream_error(sk, flags, err);
}

/*
 * As in tcp_sendmsg_locked() for a route that cannot send the user's pages: the bytes are copied, and
 * the completion says so (SO_EE_CODE_ZEROCOPY_COPIED).  tcp_poll() and inet_recv_error() show it.
 */
struct ubuf_info *xlb_sk_zerocopy_begin(struct sock *sk, size_t len, int flags)
{
	struct ubuf_info *uarg;

	if (likely(!(flags & MSG_ZEROCOPY)) || !len || !sock_flag(sk, SOCK_ZEROCOPY))
		return NULL;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
	uarg = msg_zerocopy_realloc(sk, len, NULL, false);
#else
	uarg = msg_zerocopy_realloc(sk, len, NULL);
#endif
	if (!uarg)
		return ERR_PTR(-ENOBUFS);
	uarg_to_msgzc(uarg)->zerocopy = 0;
	return uarg;
}

void xlb_sk_zerocopy_end(struct ubuf_info *uarg, size_t taken)
{
	if (taken)
		net_zcopy_put(uarg);
	else
		net_zcopy_put_abort(uarg, true);
}

int xlb_intr_errno(long timeo)
{
	return sock_intr_errno(timeo);
}

int xlb_signal_pending(void)
{
	return signal_pending(current);
}

/*
 * As sk_stream_wait_close(), whose wake-up comes when the last byte of the socket itself is
 * acknowledged: that of an i-sock has none, so this looks again every 10 ms.
 */
int xlb_sk_linger(long *timeo)
{
	long step = min(*timeo, max(1L, (long)msecs_to_jiffies(10)));

	*timeo -= step - schedule_timeout_interruptible(step);
	return *timeo <= 0 || signal_pending(current);
}

/* ---- messages --------------------------------------------------------------- */

size_t xlb_msg_left(const struct msghdr *msg)
{
	return iov_iter_count(&msg->msg_iter);
}

size_t xlb_msg_copy_in(struct msghdr *msg, void *to, size_t len)
{
	return copy_from_iter(to, len, &msg->msg_iter);
}

void xlb_msg_skip(struct msghdr *msg, size_t len)
{
	iov_iter_advance(&msg->msg_iter, len);
}

size_t xlb_msg_copy_out(struct msghdr *msg, const void *from, size_t len)
{
	return copy_to_iter(from, len, &msg->msg_iter);
}

/* ---- i-socks ---------------------------------------------------------------- */

/* TCP's own callbacks: the same for every TCP socket, read off the first. */
static void (*tcp_data_ready_cb)(struct sock *sk);
static void (*tcp_write_space_cb)(struct sock *sk);
static void (*tcp_state_change_cb)(struct sock *sk);

static void isk_event(struct sock *sk, enum xlb_isock_event event)
{
	struct xlb_isock *isock;

	rcu_read_lock();
	isock = rcu_dereference_sk_user_data(sk);
	if (isock)
		xlb_isock_event(isock, event);
	rcu_read_unlock();
}

static void isk_data_ready(struct sock *sk)
{
	isk_event(sk, XLB_ISOCK_DATA);
}

static void isk_write_space(struct sock *sk)
{
	struct socket *sock = READ_ONCE(sk->sk_socket);

	/* As sk_stream_write_space(): clear when there is room, so TCP stops asking. */
	if (sock && __sk_stream_is_writeable(sk, 1)) {
		clear_bit(SOCK_NOSPACE, &sock->flags);
		isk_event(sk, XLB_ISOCK_SPACE);
	}
}

static void isk_state_change(struct sock *sk)
{
	isk_event(sk, XLB_ISOCK_STATE);
}

void xlb_isk_start(struct socket *sock, struct xlb_isock *isock)
{
	struct sock *sk = sock->sk;

	tcp_sock_set_nodelay(sk);
	/* Urgent bytes are bytes: a read must return what was framed, all of it. */
	sock_set_flag(sk, SOCK_URGINLINE);
#ifdef CONFIG_NET_RX_BUSY_POLL
	/* What net.core.busy_read says is in the p-sock, which lends it. */
	WRITE_ONCE(sk->sk_ll_usec, 0);
#endif
	lock_sock(sk);
	WRITE_ONCE(tcp_data_ready_cb, sk->sk_data_ready);
	WRITE_ONCE(tcp_write_space_cb, sk->sk_write_space);
	WRITE_ONCE(tcp_state_change_cb, sk->sk_state_change);
	rcu_assign_sk_user_data(sk, isock);
	WRITE_ONCE(sk->sk_data_ready, isk_data_ready);
	WRITE_ONCE(sk->sk_write_space, isk_write_space);
	WRITE_ONCE(sk->sk_state_change, isk_state_change);
	release_sock(sk);
}

/* Mirrors xlb_isk_start().  Callbacks run with the lock, so none is left after this. */
void xlb_isk_stop(struct socket *sock)
{
	struct sock *sk = sock->sk;

	lock_sock(sk);
	WRITE_ONCE(sk->sk_data_ready, tcp_data_ready_cb);
	WRITE_ONCE(sk->sk_write_space, tcp_write_space_cb);
	WRITE_ONCE(sk->sk_state_change, tcp_state_change_cb);
	rcu_assign_sk_user_data(sk, NULL);
	release_sock(sk);
}

void xlb_isk_release(struct socket *sock, int abort)
{
	struct sock *sk = sock->sk;
	struct net *net = sock_net(sk);

	/*
	 * A kernel socket holds no reference to its netns, so tcp_close() stops its
	 * timers: a FIN that is lost would never be sent again.  Take the reference for
	 * the time of the close, or reset where the netns is going.
	 */
	if (!abort && maybe_get_net(net)) {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
		sk_net_refcnt_upgrade(sk);
#endif
		put_net(net);
	} else {
		sock_no_linger(sk);
	}
	xlb_isk_destroy(sock);
}

struct sock *xlb_socket_sk(const struct socket *sock)
{
	return sock->sk;
}

int xlb_isk_idle_ok(const struct sock *sk)
{
	const struct tcp_sock *tp = tcp_sk(sk);

	return inet_sk_state_load(sk) == TCP_ESTABLISHED &&
	       READ_ONCE(tp->rcv_nxt) == READ_ONCE(tp->copied_seq) && !READ_ONCE(sk->sk_err) &&
	       !READ_ONCE(sk->sk_shutdown);
}

/*
 * Receive flow steering (Documentation/networking/scaling.rst) learns in inet_sendmsg() and
 * inet_recvmsg() where a program runs, but from the p-sock, to which no packet comes.  A worker that
 * sends in its stead says nothing of that.
 */
static void isk_record_flow(const struct sock *sk)
{
	if (rfs_is_needed() && !(current->flags & PF_WQ_WORKER))
		sock_rps_record_flow(sk);
}

int xlb_isk_send_buf(struct sock *sk, const void *buf, size_t len, int flags)
{
	struct kvec vec = { .iov_base = (void *)buf, .iov_len = len };
	struct msghdr msg = { .msg_flags = flags | MSG_DONTWAIT | MSG_NOSIGNAL };

	isk_record_flow(sk);
	iov_iter_kvec(&msg.msg_iter, ITER_SOURCE, &vec, 1, len);
	return tcp_sendmsg_locked(sk, &msg, len);
}

int xlb_isk_send_msg(struct sock *sk, struct msghdr *msg, size_t len, int more)
{
	size_t left = iov_iter_count(&msg->msg_iter);
	size_t controllen = msg->msg_controllen;
	unsigned int flags = msg->msg_flags;
	int ret;

	isk_record_flow(sk);
	/* The caller's ancillary data and completion requests are not for this socket. */
	msg->msg_flags = (flags & MSG_SPLICE_PAGES) | MSG_DONTWAIT | MSG_NOSIGNAL |
			 (more ? MSG_MORE : 0);
	msg->msg_controllen = 0;
	len = min(len, left);
	iov_iter_truncate(&msg->msg_iter, len);
	ret = tcp_sendmsg_locked(sk, msg, len);
	iov_iter_reexpand(&msg->msg_iter, left - (len - iov_iter_count(&msg->msg_iter)));
	msg->msg_flags = flags;
	msg->msg_controllen = controllen;
	return ret;
}

int xlb_isk_recv_msg(struct sock *sk, struct msghdr *msg, size_t len, int flags)
{
	size_t left = iov_iter_count(&msg->msg_iter);
	int ret;

	isk_record_flow(sk);
	len = min(len, left);
	iov_iter_truncate(&msg->msg_iter, len);
	/* Through the table: tcp_recvmsg() is not exported. */
	ret = tcp_prot.recvmsg(sk, msg, len, flags | MSG_DONTWAIT);
	iov_iter_reexpand(&msg->msg_iter, left - (len - iov_iter_count(&msg->msg_iter)));
	return ret;
}

/* The i-sock's own SO_PEEK_OFF is set for this call: nobody else reads it. */
int xlb_isk_peek_msg(struct sock *sk, struct msghdr *msg, size_t len, int flags, __u32 off)
{
	int ret;

	WRITE_ONCE(sk->sk_peek_off, off);
	ret = xlb_isk_recv_msg(sk, msg, len, flags);
	WRITE_ONCE(sk->sk_peek_off, -1);
	return ret;
}

int xlb_isk_recv_buf(struct sock *sk, void *buf, size_t len, int flags)
{
	struct kvec vec = { .iov_base = buf, .iov_len = len };
	struct msghdr msg = {};

	iov_iter_kvec(&msg.msg_iter, ITER_DEST, &vec, 1, len);
	return tcp_prot.recvmsg(sk, &msg, len, flags | MSG_DONTWAIT);
}

/*
 * What will be framed must not change until it is delivered: an endpoint on this host may still
 * write to pages that it gave to sendfile() or vmsplice().  Those are in a file, mapped or pinned;
 * those that TCP fills itself are nothing of that.  May sleep; false without memory.
 */
static bool isk_own_frag(struct sk_buff *skb, u32 offset)
{
	u32 end = skb_headlen(skb);
	struct folio *folio;
	int i;

	for (i = 0; offset >= end && i < skb_shinfo(skb)->nr_frags; i++)
		end += skb_frag_size(&skb_shinfo(skb)->frags[i]);
	if (offset >= end)
		return !skb_has_frag_list(skb) || !skb_linearize_cow(skb);
	if (!i)
		return true;
	folio = page_folio(skb_frag_page(&skb_shinfo(skb)->frags[i - 1]));
	if (!folio->mapping && !folio_mapped(folio) && !folio_maybe_dma_pinned(folio))
		return true;
	if (skb_copy_ubufs(skb, GFP_KERNEL))
		return false;
	skb_shinfo(skb)->flags &= ~SKBFL_SHARED_FRAG;
	return true;
}

/*
 * The longest contiguous piece of the receive queue that starts `off` bytes after
 * what has been read; 0 when there is none.  Valid until the lock is released or
 * the next call.
 */
size_t xlb_isk_peek(struct sock *sk, __u32 off, const __u8 **data)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	u32 seq = tp->copied_seq + off;
	struct skb_seq_state st;
	struct sk_buff *skb;
	u32 offset;
	size_t n;

	skb_queue_walk(&sk->sk_receive_queue, skb) {
		offset = seq - TCP_SKB_CB(skb)->seq;
		if (offset >= skb->len)
			continue;
		if (unlikely(skb_has_shared_frag(skb)) && skb_frags_readable(skb) &&
		    !isk_own_frag(skb, offset))
			return 0;
		skb_prepare_seq_read(skb, offset, skb->len, &st);
		n = skb_seq_read(0, data, &st);
		skb_abort_seq_read(&st);
		return n;
	}
	return 0;
}

/*
 * tcp_inq() is for whoever holds the lock; this is for anybody (and urgent data is in line).  A FIN
 * counts in rcv_nxt before SOCK_DONE is set, so the flag comes first: an end that arrives meanwhile
 * may look like a byte for a moment, and never hides one.
 */
int xlb_isk_inq(const struct sock *sk)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	bool done = sock_flag(sk, SOCK_DONE);
	u32 n;

	smp_rmb();
	n = READ_ONCE(tp->rcv_nxt) - READ_ONCE(tp->copied_seq);
	return n && done ? n - 1 : n;
}

int xlb_isk_outq(const struct sock *sk)
{
	const struct tcp_sock *tp = tcp_sk(sk);

	return READ_ONCE(tp->write_seq) - READ_ONCE(tp->snd_una);
}

int xlb_isk_flying(const struct sock *sk)
{
	const struct tcp_sock *tp = tcp_sk(sk);

	return READ_ONCE(tp->snd_nxt) - READ_ONCE(tp->snd_una);
}

int xlb_isk_readable(const struct sock *sk)
{
	const struct tcp_sock *tp = tcp_sk(sk);

	return READ_ONCE(tp->rcv_nxt) != READ_ONCE(tp->copied_seq) || xlb_isk_fin(sk);
}

int xlb_isk_readable_to(const struct sock *sk, int target)
{
	return tcp_epollin_ready(sk, target) || xlb_isk_fin(sk);
}

/* sk may have been freed, and be another socket by now. */
int xlb_isk_get(struct sock *sk)
{
	return refcount_inc_not_zero(&sk->sk_refcnt);
}

void xlb_isk_put(struct sock *sk)
{
	sock_put(sk);
}

/* sk_prot and the netns are followed: not without a reference. */
int xlb_isk_writable(struct sock *sk)
{
	struct socket *sock;

	if (sk_stream_is_writeable(sk))
		return 1;
	/* Sockets are freed after a grace period, see sock_free_inode(). */
	sock = READ_ONCE(sk->sk_socket);
	if (sock) {
		set_bit(SOCK_NOSPACE, &sock->flags);
		/* Pairs with the order of sk_wmem_queued and the flag in TCP's ACK path. */
		smp_mb__after_atomic();
	}
	return sk_stream_is_writeable(sk) || xlb_isk_fin(sk);
}

int xlb_isk_fin(const struct sock *sk)
{
	int state = inet_sk_state_load(sk);
	bool fin = state == TCP_CLOSE || state == TCP_CLOSE_WAIT || state == TCP_LAST_ACK ||
		   state == TCP_CLOSING || state == TCP_TIME_WAIT || READ_ONCE(sk->sk_err) ||
		   (READ_ONCE(sk->sk_shutdown) & RCV_SHUTDOWN);

	/* What came before the end is seen by who has seen the end. */
	smp_rmb();
	return fin;
}

int xlb_isk_reset(const struct sock *sk)
{
	/* sk_err may have been taken by a read; a FIN always sets SOCK_DONE. */
	return READ_ONCE(sk->sk_err) || !sock_flag(sk, SOCK_DONE);
}

void xlb_isk_shut_write(struct socket *sock)
{
	/* Once: inet_shutdown() calls sk_state_change() each time, and that may call us. */
	if (!(READ_ONCE(sock->sk->sk_shutdown) & SEND_SHUTDOWN))
		kernel_sock_shutdown(sock, SHUT_WR);
}

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

void xlb_counts_from(__u64 from)
{
	static const bool counts[] = {
#define X(upper, lower, kind, text) [XLB_COUNTER_##upper] = #kind[0] == 'c',
		XLB_COUNTERS(X)
#undef X
	};
	int i;

	for (i = 0; i < XLB_COUNTER_COUNT; i++)
		if (counts[i])
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

void xlb_counters_read(struct xlb_info *info)
{
	const struct counters *c;
	int cpu, i;

	for_each_possible_cpu(cpu) {
		c = per_cpu_ptr(&counters, cpu);
		for (i = 0; i < XLB_COUNTER_COUNT; i++)
			info->counters[i] += c->counters[i];
		for (i = 0; i < XLB_REASON_COUNT; i++)
			info->reasons[i] += c->reasons[i];
		for (i = 0; i < XLB_ENGINE_REASONS; i++)
			info->engine_reasons[i] += c->engine[i];
	}
}

/* ---- network namespaces ----------------------------------------------------- */

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
	xlb_wq = alloc_workqueue("xlb", WQ_UNBOUND | WQ_MEM_RECLAIM | WQ_HIGHPRI, 0);
	if (!xlb_wq)
		return -ENOMEM;
	err = xlb_identity_init();
	if (err)
		goto err_wq;
	err = -ENOMEM;
	xlb_reaper_wq = alloc_workqueue("xlb_reaper", WQ_UNBOUND | WQ_MEM_RECLAIM, 1);
	if (!xlb_reaper_wq)
		goto err_identity;
	err = register_pernet_subsys(&xlb_net_ops);
	if (err)
		goto err_reaper;
	err = xlb_policy_init();
	if (err)
		goto err_net;
	return 0;

err_net:
	unregister_pernet_subsys(&xlb_net_ops);
err_reaper:
	destroy_workqueue(xlb_reaper_wq);
err_identity:
	xlb_identity_exit();
err_wq:
	destroy_workqueue(xlb_wq);
	return err;
}

void xlb_shim_exit(void)
{
	unregister_pernet_subsys(&xlb_net_ops);
	destroy_workqueue(xlb_reaper_wq);
	xlb_identity_exit();
	destroy_workqueue(xlb_wq);
	xlb_proto_exit();
}
