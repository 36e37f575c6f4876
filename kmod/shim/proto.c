// SPDX-License-Identifier: GPL-2.0
/*
 * How a TCP socket becomes a p-sock: struct proto, struct proto_ops and ULP.
 *
 * bpf_xlb_accept() runs inside sk_prot->pre_connect with the socket locked.  It
 * attaches once: a struct xlb_psock in icsk_ulp_data, xlb_ulp_ops, and the tables
 * below.  __inet_stream_connect() then loads sk_prot->connect, which is ours, in
 * the same call.  A p-sock is never hashed and never sends a packet of its own.
 *
 * Attach is for life: the tables and the ULP stay until the socket is destroyed,
 * so no reader can meet a table of a module that has gone.  A p-sock that is later
 * connected elsewhere is "passed through": every operation goes to TCP's own.
 * The one exception is a p-sock that was ended by force, see xlb_sk_leave().
 *
 * Module references: one of sock->ops->owner, which __sock_release() drops after
 * ->release() has returned, one of the ULP, which tcp_cleanup_ulp() drops.
 *
 * This is also the one place that knows how the signatures of struct proto and
 * struct proto_ops differ between kernels.
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/srcu.h>
#include <linux/version.h>
#include <net/busy_poll.h>
#include <net/inet_common.h>
#include <net/ipv6.h>
#include <net/tcp.h>
#include <net/transp_v6.h>
#include <asm/ioctls.h>

#include "xlb_shim.h"
#include "xlb_proto.h"

/* [0] AF_INET, [1] AF_INET6; copies of TCP's with our entries, made at load. */
static struct proto xlb_prot[2];
static struct proto_ops xlb_stream_ops[2];

static const struct proto *tcp_of(const struct sock *sk)
{
	return sk->sk_family == AF_INET6 ? &tcpv6_prot : &tcp_prot;
}

static const struct proto_ops *tcp_ops_of(const struct sock *sk)
{
	return sk->sk_family == AF_INET6 ? &inet6_stream_ops : &inet_stream_ops;
}

/*
 * The p-sock, or NULL when the socket is passed through to TCP.  The xlb_psock
 * lives until the socket is destroyed and then for a grace period.
 */
static struct xlb_psock *ours(const struct sock *sk)
{
	struct xlb_psock *psock = xlb_sk_psock(sk);

	return psock && xlb_psock_is_ours(psock) ? psock : NULL;
}

/* ---- connect ---------------------------------------------------------------- */

/*
 * A port to show for an unbound p-sock.  It is not reserved: no packet carries it,
 * and two p-socks may show the same one.
 */
static __be16 shown_port(void)
{
	return htons(32768 + (get_random_u32() >> 18));
}

static int set_names_v4(struct sock *sk, const struct sockaddr_in *to)
{
	struct inet_sock *inet = inet_sk(sk);

	inet->inet_daddr = to->sin_addr.s_addr;
	inet->inet_dport = to->sin_port;
	/*
	 * The p-sock never leaves the host; a bound address stays.  Only the name: the address
	 * that a bound socket receives on is its place in bhash2.
	 */
	if (!inet->inet_saddr)
		inet->inet_saddr = htonl(INADDR_LOOPBACK);
	return 0;
}

#if IS_ENABLED(CONFIG_IPV6)
static int set_names_v6(struct sock *sk, const struct sockaddr_in6 *to)
{
	struct ipv6_pinfo *np = inet6_sk(sk);
	struct in6_addr from = in6addr_loopback;

	if (ipv6_addr_v4mapped(&to->sin6_addr)) {
		if (ipv6_only_sock(sk))
			return -ENETUNREACH;
		ipv6_addr_set_v4mapped(htonl(INADDR_LOOPBACK), &from);
	}
	sk->sk_v6_daddr = to->sin6_addr;
	inet_sk(sk)->inet_dport = to->sin6_port;
	if (ipv6_addr_any(&np->saddr))
		np->saddr = from;
	return 0;
}
#endif

/* The names that connect has set; what the program has bound stays. */
static void forget_names(struct sock *sk)
{
	struct inet_sock *inet = inet_sk(sk);

	/* A socket bound to a multicast address has no source address but the one we showed. */
	if (sk->sk_family == AF_INET && inet->inet_saddr != inet->inet_rcv_saddr)
		inet->inet_saddr = 0;
	if (!(sk->sk_userlocks & SOCK_BINDADDR_LOCK)) {
		inet->inet_saddr = 0;
#if IS_ENABLED(CONFIG_IPV6)
		if (sk->sk_family == AF_INET6)
			memset(&inet6_sk(sk)->saddr, 0, sizeof(struct in6_addr));
#endif
	}
	inet->inet_sport = htons(inet->inet_num);
	inet->inet_daddr = 0;
}

static int xlb_connect(struct sock *sk, struct sockaddr_unsized *uaddr, int addr_len)
{
	struct xlb_psock *psock = xlb_sk_psock(sk);
	struct inet_sock *inet = inet_sk(sk);
	__u8 vip[16];
	__u16 port;
	int err;

	if (!xlb_psock_take_armed(psock)) {
		/*
		 * A socket in TCP's tables must be counted by those who look it up.  No i-sock
		 * wakes this one any more, but for sections that have begun.
		 */
		if (sock_flag(sk, SOCK_RCU_FREE)) {
			synchronize_rcu();
			sock_reset_flag(sk, SOCK_RCU_FREE);
		}
		return tcp_of(sk)->connect(sk, uaddr, addr_len);
	}
	/*
	 * sendto(MSG_FASTOPEN): tcp_sendmsg() is above us and would go on to send by itself.
	 * Programs take this error for "connect and send, then".
	 */
	if (tcp_sk(sk)->fastopen_req)
		return -EOPNOTSUPP;

#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6) {
		if (addr_len < SIN6_LEN_RFC2133 || uaddr->sa_family != AF_INET6)
			return -EAFNOSUPPORT;
		err = set_names_v6(sk, (struct sockaddr_in6 *)uaddr);
	} else
#endif
	{
		if (addr_len < sizeof(struct sockaddr_in) || uaddr->sa_family != AF_INET)
			return -EAFNOSUPPORT;
		err = set_names_v4(sk, (struct sockaddr_in *)uaddr);
	}
	if (err)
		return err;

	xlb_sk_peer(sk, vip, &port);
	err = xlb_psock_connected(psock, vip, port);
	if (err) {
		forget_names(sk);
		return err;
	}
	inet->inet_sport = inet->inet_num ? htons(inet->inet_num) : shown_port();
	WRITE_ONCE(sk->sk_shutdown, 0);
	/* As tcp_connect_init(): the end of a former connection is no error of this one. */
	WRITE_ONCE(sk->sk_err, 0);
	sock_reset_flag(sk, SOCK_DONE);
	inet_sk_set_state(sk, TCP_ESTABLISHED);
	/* __inet_stream_connect() takes 0 and this state for SS_CONNECTED. */
	return 0;
}

static int xlb_pre_connect(struct sock *sk, struct sockaddr_unsized *uaddr, int addr_len)
{
	/* A connect that was refused after bpf_xlb_accept() must not arm this one. */
	xlb_psock_arm(xlb_sk_psock(sk), 0, 0);
	return tcp_of(sk)->pre_connect(sk, uaddr, addr_len);
}

static int xlb_disconnect(struct sock *sk, int flags)
{
	struct xlb_psock *psock = ours(sk);

	if (psock) {
		xlb_psock_disconnect(psock);
		/* Not tcp_set_state(): ESTABLISHED was never counted. */
		inet_sk_set_state(sk, TCP_CLOSE);
		forget_names(sk);
	}
	return tcp_of(sk)->disconnect(sk, flags);
}

/* ---- data ------------------------------------------------------------------- */

static int xlb_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)
{
	struct xlb_psock *psock = ours(sk);

	int flags = msg->msg_flags;

	if (!psock)
		return tcp_of(sk)->sendmsg(sk, msg, len);
	/*
	 * io_uring's SEND_ZC brings the completion with it, and holds a reference to it for the time of
	 * this call.  Nothing else does when the bytes are copied: it completes, and says so, as where
	 * tcp_sendmsg_locked() finds a route that cannot send the user's pages.
	 */
	if (msg->msg_ubuf)
		flags &= ~MSG_ZEROCOPY;
	return xlb_psock_sendmsg(psock, msg, len, flags);
}

static int xlb_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int flags)
{
	struct xlb_psock *psock = ours(sk);

	if (!psock)
		return tcp_of(sk)->recvmsg(sk, msg, len, flags);
	if (flags & MSG_ERRQUEUE)
		return inet_recv_error(sk, msg, len);
	if (flags & MSG_OOB)
		return -EINVAL;
#ifdef CONFIG_NET_RX_BUSY_POLL
	if (sk_can_busy_loop(sk))
		xlb_sk_busy_poll(sk, flags & MSG_DONTWAIT);
#endif
	return xlb_psock_recvmsg(psock, msg, len, flags);
}

static void xlb_splice_eof(struct socket *sock)
{
	struct sock *sk = sock->sk;

	/* What a p-sock was given is pushed at once: nothing is corked. */
	if (!ours(sk))
		tcp_of(sk)->splice_eof(sock);
}

static bool xlb_stream_memory_free(const struct sock *sk, int wake)
{
	struct xlb_psock *psock;
	int ret;

	rcu_read_lock();
	psock = xlb_sk_psock(sk);
	ret = psock ? xlb_psock_writable(psock) : -1;
	if (unlikely(ret < 0))
		ret = tcp_of(sk)->stream_memory_free(sk, wake);
	rcu_read_unlock();
	return ret;
}

static bool xlb_sock_is_readable(struct sock *sk)
{
	struct xlb_psock *psock;
	bool ret;

	rcu_read_lock();
	psock = xlb_sk_psock(sk);
	/* From tcp_poll(): what a read would wait for, sock_rcvlowat(sk, 0, INT_MAX). */
	ret = psock && xlb_psock_readable(psock, READ_ONCE(sk->sk_rcvlowat)) > 0;
	rcu_read_unlock();
	return ret;
}

static int xlb_ioctl(struct sock *sk, int cmd, int *karg)
{
	struct xlb_psock *psock = ours(sk);

	if (!psock)
		return tcp_of(sk)->ioctl(sk, cmd, karg);
	switch (cmd) {
	case SIOCINQ:
		*karg = xlb_psock_inq(psock);
		return 0;
	case SIOCOUTQ:
		*karg = xlb_psock_outq(psock);
		return 0;
	case SIOCOUTQNSD:
		*karg = xlb_psock_outq_nsd(psock);
		return 0;
	case SIOCATMARK:
		*karg = 0;
		return 0;
	}
	return -ENOIOCTLCMD;
}

/* ---- options ---------------------------------------------------------------- */

/* tcp_sock_set_keepidle_locked() without its timer: there is no peer to ask. */
static int set_keepidle(struct sock *sk, sockptr_t optval, unsigned int optlen)
{
	int val;

	if (optlen < sizeof(val))
		return -EINVAL;
	if (copy_from_sockptr(&val, optval, sizeof(val)))
		return -EFAULT;
	if (val < 1 || val > MAX_TCP_KEEPIDLE)
		return -EINVAL;
	WRITE_ONCE(tcp_sk(sk)->keepalive_time, val * HZ);
	return 0;
}

/* SOL_SOCKET comes here because of SOCK_CUSTOM_SOCKOPT. */
static int xlb_setsockopt(struct sock *sk, int level, int optname, sockptr_t optval,
			  unsigned int optlen)
{
	struct xlb_psock *psock = ours(sk);
	int err;

	if (psock && !xlb_option_is_portable(level, optname))
		return -EOPNOTSUPP;
	if (level == SOL_SOCKET) {
		err = sock_setsockopt(sk->sk_socket, level, optname, optval, optlen);
		if (!err && psock)
			xlb_psock_set_options(psock);
		return err;
	}
	if (level == SOL_TCP && psock) {
		switch (optname) {
		/* The other options of repair are refused by TCP without this one. */
		case TCP_REPAIR:
		case TCP_ULP:
			return -EOPNOTSUPP;
		case TCP_KEEPIDLE:
			err = set_keepidle(sk, optval, optlen);
			if (!err)
				xlb_psock_set_options(psock);
			return err;
		}
	}
	/*
	 * TCP refuses this one where a socket has a port, which a p-sock has not.  IPV6_ADDRFORM, which would
	 * replace our tables with IPv4's, it refuses for every sk_prot but its own.
	 */
	if (level == SOL_IPV6 && optname == IPV6_V6ONLY && sk->sk_family == AF_INET6 && psock)
		return -EINVAL;
	err = tcp_of(sk)->setsockopt(sk, level, optname, optval, optlen);
	if (!err && psock)
		xlb_psock_set_options(psock);
	return err;
}

/* What TCP would be in, had the connection been one: the endpoint's end is the end of the last response. */
static __u8 shown_state(const struct sock *sk, const struct xlb_psock *psock)
{
	bool sent_end = READ_ONCE(sk->sk_shutdown) & SEND_SHUTDOWN;

	if (xlb_psock_has_ended(psock))
		return sent_end ? TCP_CLOSE : TCP_CLOSE_WAIT;
	return sent_end ? TCP_FIN_WAIT2 : inet_sk_state_load(sk);
}

/* Of the connection that is bound, or where there is none, of the p-sock: with little more than its state. */
static int get_connection(struct sock *sk, struct xlb_psock *psock, int optname,
			  char __user *optval, int __user *optlen)
{
	struct sock *isk;
	int err, len;

	rcu_read_lock();
	isk = xlb_psock_bound(psock);
	rcu_read_unlock();
	err = tcp_of(sk)->getsockopt(isk ?: sk, SOL_TCP, optname, optval, optlen);
	if (isk)
		sock_put(isk);
	if (err || optname != TCP_INFO)
		return err;
	if (get_user(len, optlen))
		return -EFAULT;
	if (len > 0 && put_user(shown_state(sk, psock), (__u8 __user *)optval))
		return -EFAULT;
	return 0;
}

static int xlb_getsockopt(struct sock *sk, int level, int optname, char __user *optval,
			  int __user *optlen)
{
	struct xlb_psock *psock = ours(sk);

	if (level == SOL_TCP && psock) {
		switch (optname) {
		case TCP_INFO:
		case TCP_CC_INFO:
		case TCP_MAXSEG:
			return get_connection(sk, psock, optname, optval, optlen);
		/* A p-sock cannot be mapped, and its own queue is always empty. */
		case TCP_ZEROCOPY_RECEIVE:
			return -EOPNOTSUPP;
		}
	}
	return tcp_of(sk)->getsockopt(sk, level, optname, optval, optlen);
}

static void xlb_keepalive(struct sock *sk, int on)
{
	if (!ours(sk))
		tcp_of(sk)->keepalive(sk, on);
}

/* ---- end -------------------------------------------------------------------- */

static void xlb_shutdown(struct sock *sk, int how)
{
	struct xlb_psock *psock = ours(sk);

	if (psock)
		xlb_psock_shutdown(psock, how);
	else
		tcp_of(sk)->shutdown(sk, how);
}

/* The p-sock's part is over: no work and no i-sock knows sk. */
static void close_psock(struct sock *sk, bool mine, long timeout)
{
	if (mine) {
		lock_sock(sk);
		inet_sk_set_state(sk, TCP_CLOSE);
		release_sock(sk);
	}
	tcp_of(sk)->close(sk, timeout);
}

static void xlb_close(struct sock *sk, long timeout)
{
	struct xlb_psock *psock = xlb_sk_psock(sk);
	bool mine = xlb_psock_is_ours(psock);

	/*
	 * Takes and drops the socket lock.  With a request that is still to be sent the socket
	 * stays, without owner and for a few seconds at most: it may be gone here already.
	 */
	if (!xlb_psock_close(psock, timeout))
		close_psock(sk, mine, timeout);
}

void xlb_sk_close(struct sock *sk)
{
	close_psock(sk, true, 0);
}

/*
 * From release_sock(), sk_lock.slock held, the lock itself still owned: what the work could not do
 * while the owner held the socket.  As in mptcp_release_cb(), the spinlock is let go of meanwhile.
 */
static void xlb_release_cb(struct sock *sk) __must_hold(&sk->sk_lock.slock)
{
	struct xlb_psock *psock = xlb_sk_psock(sk);

	while (psock && xlb_psock_take_deferred(psock)) {
		spin_unlock_bh(&sk->sk_lock.slock);
		xlb_psock_deferred_work(psock);
		spin_lock_bh(&sk->sk_lock.slock);
	}
	/* TCP's own has nothing to do where no segment was ever sent. */
	if (unlikely(smp_load_acquire(&sk->sk_tsq_flags)))
		tcp_of(sk)->release_cb(sk);
}

/* tcp_cleanup_ulp(), from tcp_v4_destroy_sock(): the socket is dead, bh_lock_sock held. */
static void xlb_ulp_release(struct sock *sk)
{
	struct inet_connection_sock *icsk = inet_csk(sk);
	struct xlb_psock *psock = xlb_sk_psock(sk);

	/* sk_destruct() runs after our reference is gone: it must not see our table. */
	WRITE_ONCE(sk->sk_prot, (struct proto *)tcp_of(sk));
	rcu_assign_pointer(icsk->icsk_ulp_data, NULL);
	xlb_psock_free(psock);
}

static struct tcp_ulp_ops xlb_ulp_ops = {
	.name = "xlb",
	.owner = THIS_MODULE,
	.release = xlb_ulp_release,
};

/* ---- attach ----------------------------------------------------------------- */

/*
 * Called by BPF in pre_connect, socket locked, in RCU: nothing here may sleep.
 * Refuses what is owned by somebody else, and the module's own connections.
 */
int xlb_attach(struct sock *sk, __u32 service)
{
	struct inet_connection_sock *icsk;
	struct xlb_psock *psock;
	struct socket *sock = sk->sk_socket;
	int v6 = sk->sk_family == AF_INET6;

	if (sk->sk_protocol != IPPROTO_TCP || sk->sk_type != SOCK_STREAM || !sock ||
	    sk->sk_kern_sock || (sk->sk_family != AF_INET && !v6))
		return -EOPNOTSUPP;
	icsk = inet_csk(sk);
	if (tcp_sk(sk)->repair || !xlb_sk_portable(sk))
		return -EOPNOTSUPP;

	if (icsk->icsk_ulp_ops == &xlb_ulp_ops) {
		xlb_psock_arm(xlb_sk_psock(sk), service, 1);
		sock_set_flag(sk, SOCK_RCU_FREE);
		return 0;
	}
	if (icsk->icsk_ulp_ops || rcu_access_pointer(sk->sk_user_data) ||
	    sk->sk_prot != tcp_of(sk) || READ_ONCE(sock->ops) != tcp_ops_of(sk))
		return -EBUSY;

	psock = xlb_psock_new(sk, service);
	if (!psock)
		return -ENOMEM;

	/* The program that calls us holds one reference, so these cannot fail. */
	__module_get(THIS_MODULE);
	__module_get(THIS_MODULE);
	/* i-socks wake the p-sock under RCU, see isock/mod.rs. */
	sock_set_flag(sk, SOCK_RCU_FREE);
	rcu_assign_pointer(icsk->icsk_ulp_data, (void *)psock);
	icsk->icsk_ulp_ops = &xlb_ulp_ops;
	WRITE_ONCE(sock->ops, &xlb_stream_ops[v6]);
	WRITE_ONCE(sk->sk_prot, &xlb_prot[v6]);
	/* Options of SOL_SOCKET go to sk_prot->setsockopt, which must be ours by then. */
	smp_mb__before_atomic();
	set_bit(SOCK_CUSTOM_SOCKOPT, &sock->flags);
	return 0;
}

/* ---- leaving ---------------------------------------------------------------- */

/*
 * A p-sock that has ended gets TCP's tables back (psock/leave.rs).  Who may be in ours then?
 *
 *   close, and ->release()       nobody: the caller holds a reference to the file
 *   what TCP calls with the      nobody: the caller holds the lock
 *   socket locked
 *   sendmsg, recvmsg, ioctl,     sections of xlb_calls: their p-sock is there until they return,
 *   [gs]etsockopt, splice_eof    and its references to the module too
 *   stream_memory_free,          RCU sections, and nothing else
 *   sock_is_readable
 *
 * Those who have loaded a pointer, to a table or a function, and not followed it yet, do that
 * before they sleep: nothing in net/ keeps such a pointer over a sleep, but for accept(), which
 * takes a reference to the owner first.  xlb_proto_exit() waits for them.
 */
DEFINE_STATIC_SRCU(xlb_calls);

static int call_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)
{
	int idx = srcu_read_lock(&xlb_calls);
	int ret = xlb_sendmsg(sk, msg, len);

	srcu_read_unlock(&xlb_calls, idx);
	return ret;
}

static int call_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int flags)
{
	int idx = srcu_read_lock(&xlb_calls);
	int ret = xlb_recvmsg(sk, msg, len, flags);

	srcu_read_unlock(&xlb_calls, idx);
	return ret;
}

static int call_ioctl(struct sock *sk, int cmd, int *karg)
{
	int idx = srcu_read_lock(&xlb_calls);
	int ret = xlb_ioctl(sk, cmd, karg);

	srcu_read_unlock(&xlb_calls, idx);
	return ret;
}

static int call_setsockopt(struct sock *sk, int level, int optname, sockptr_t optval,
			   unsigned int optlen)
{
	int idx = srcu_read_lock(&xlb_calls);
	int ret = xlb_setsockopt(sk, level, optname, optval, optlen);

	srcu_read_unlock(&xlb_calls, idx);
	return ret;
}

static int call_getsockopt(struct sock *sk, int level, int optname, char __user *optval,
			   int __user *optlen)
{
	int idx = srcu_read_lock(&xlb_calls);
	int ret = xlb_getsockopt(sk, level, optname, optval, optlen);

	srcu_read_unlock(&xlb_calls, idx);
	return ret;
}

static void call_splice_eof(struct socket *sock)
{
	int idx = srcu_read_lock(&xlb_calls);

	xlb_splice_eof(sock);
	srcu_read_unlock(&xlb_calls, idx);
}

void xlb_sk_leave(struct sock *sk)
{
	struct inet_connection_sock *icsk = inet_csk(sk);
	struct socket *sock = sk->sk_socket;

	inet_sk_set_state(sk, TCP_CLOSE);
	forget_names(sk);
	inet_sk(sk)->inet_dport = 0;
	sock_set_flag(sk, SOCK_DONE);
	WRITE_ONCE(sk->sk_shutdown, SHUTDOWN_MASK);
	/* Mirrors xlb_attach(). */
	WRITE_ONCE(sk->sk_prot, (struct proto *)tcp_of(sk));
	WRITE_ONCE(sock->ops, tcp_ops_of(sk));
	icsk->icsk_ulp_ops = NULL;
	rcu_assign_pointer(icsk->icsk_ulp_data, NULL);
	clear_bit(SOCK_CUSTOM_SOCKOPT, &sock->flags);
	/* No i-sock has known it for a grace period. */
	sock_reset_flag(sk, SOCK_RCU_FREE);
	sk->sk_state_change(sk);
}

static bool any_left;

/* In softirq. */
static void psock_left(struct rcu_head *rcu)
{
	xlb_psock_free((struct xlb_psock *)rcu);
	module_put(THIS_MODULE);
	module_put(THIS_MODULE);
}

void xlb_psock_leave(struct xlb_psock *psock)
{
	WRITE_ONCE(any_left, true);
	/* Room for the head is at its beginning, see xlb_kfree_rcu(). */
	call_srcu(&xlb_calls, (struct rcu_head *)psock, psock_left);
}

/* No p-sock is left. */
void xlb_proto_exit(void)
{
	int i;

	if (!READ_ONCE(any_left))
		return;
	/* Who was preempted on the way in is in, or past it. */
	synchronize_rcu_tasks();
	synchronize_srcu(&xlb_calls);
	srcu_barrier(&xlb_calls);
	/* An accept(), which is refused at once, with its late reference; there are none when a module goes. */
	for (i = 0; module_refcount(THIS_MODULE) >= 0 && i < 1000; i++)
		msleep(10);
	/* And on the way out. */
	synchronize_rcu_tasks();
}

static void build(int i, const struct proto *prot, const struct proto_ops *ops)
{
	struct proto *p = &xlb_prot[i];
	struct proto_ops *o = &xlb_stream_ops[i];

	*p = *prot;
	p->owner = THIS_MODULE;
	p->pre_connect = xlb_pre_connect;
	p->connect = xlb_connect;
	p->disconnect = xlb_disconnect;
	p->close = xlb_close;
	p->release_cb = xlb_release_cb;
	p->shutdown = xlb_shutdown;
	p->sendmsg = call_sendmsg;
	p->recvmsg = call_recvmsg;
	p->splice_eof = call_splice_eof;
	p->ioctl = call_ioctl;
	p->setsockopt = call_setsockopt;
	p->getsockopt = call_getsockopt;
	p->keepalive = xlb_keepalive;
	p->stream_memory_free = xlb_stream_memory_free;
	p->sock_is_readable = xlb_sock_is_readable;
	/* No sockmap, no abort by address: a p-sock is in no table they use. */
	p->psock_update_sk_prot = NULL;
	p->diag_destroy = NULL;

	*o = *ops;
	o->owner = THIS_MODULE;
	/*
	 * These read TCP's own queues, which a p-sock does not use.  Without splice_read
	 * sock_splice_read() falls back to copy_splice_read(), and so to our recvmsg.
	 */
	o->splice_read = NULL;
	o->mmap = sock_no_mmap;
	o->read_sock = NULL;
	o->read_skb = NULL;
	o->sendmsg_locked = NULL;
	o->peek_len = NULL;
}

void xlb_proto_init(void)
{
	build(0, &tcp_prot, &inet_stream_ops);
#if IS_ENABLED(CONFIG_IPV6)
	build(1, &tcpv6_prot, &inet6_stream_ops);
#endif
}
