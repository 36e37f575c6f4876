// SPDX-License-Identifier: GPL-2.0
/*
 * i-socks: connections to endpoints, made with sock_create_kern(), which gives them a lockdep class
 * of their own, so that locking an i-sock inside a p-sock is no recursion.
 */
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/version.h>
#include <net/rps.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "xlb_shim.h"
#include "xlb_proto.h"

#ifdef CONFIG_HIGHMEM
#error "xlb_isk_peek() returns addresses of fragments that must stay mapped"
#endif

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
