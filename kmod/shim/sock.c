// SPDX-License-Identifier: GPL-2.0
/*
 * Sockets of applications, and the messages of their system calls: macros and inline functions
 * that Rust cannot call.
 *
 * One function each, without policy; the comments in xlb_shim.h say under which lock.
 */
#include <linux/cgroup.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/sock_diag.h>
#include <linux/version.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "xlb_shim.h"
#include "xlb_proto.h"

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

/*
 * The same for clients of one network namespace with one address.  Where none is bound it is the namespace alone: a
 * p-sock has no route of which an address could be taken.
 */
__u64 xlb_sk_source(const struct sock *sk)
{
	__u64 source = sock_net(sk)->net_cookie;

#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6 && !ipv6_addr_any(&sk->sk_v6_rcv_saddr)) {
		source ^= get_unaligned((__u64 *)&sk->sk_v6_rcv_saddr.s6_addr32[0]);
		return source ^ get_unaligned((__u64 *)&sk->sk_v6_rcv_saddr.s6_addr32[2]);
	}
#endif
	return source ^ (__u64)sk->sk_rcv_saddr << 32;
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
