// SPDX-License-Identifier: GPL-2.0
/*
 * Socket options of a p-sock that matter to the connection behind it.
 *
 * Most options are a value that TCP keeps in the p-sock and gives back.  Those named in enum
 * xlb_option work on packets and queues, which are the i-sock's: they are lent to it while it is
 * bound, and taken back when it goes on to the pool, where the next client finds it as it was made.
 */
#include <linux/version.h>
#include <net/busy_poll.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "xlb_shim.h"
#include "xlb_proto.h"

/* Those of SO_TIMESTAMPING that are about what comes in. */
#define RX_TIMESTAMPING                                                                            \
	(SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_RX_HARDWARE | SOF_TIMESTAMPING_SOFTWARE | \
	 SOF_TIMESTAMPING_RAW_HARDWARE | SOF_TIMESTAMPING_OPT_CMSG |                               \
	 SOF_TIMESTAMPING_OPT_RX_FILTER)

/*
 * Which options of a p-sock are not as they were made.  SO_BUSY_POLL: i-socks are made without, so
 * it is lent also where net.core.busy_read has set it.
 */
__u8 xlb_sk_options(const struct sock *sk)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	__u8 set = 0;

	if (sk->sk_userlocks & SOCK_SNDBUF_LOCK)
		set |= XLB_OPTION_SNDBUF;
	/* SO_RCVLOWAT, too, makes room for the bytes that it asks for. */
	if (sk->sk_userlocks & SOCK_RCVBUF_LOCK || READ_ONCE(sk->sk_rcvlowat) > 1)
		set |= XLB_OPTION_RCVBUF;
	if (READ_ONCE(tp->notsent_lowat))
		set |= XLB_OPTION_NOTSENT;
	if (READ_ONCE(sk->sk_max_pacing_rate) != ~0UL)
		set |= XLB_OPTION_PACING;
	if (sock_flag(sk, SOCK_RCVTSTAMP) || READ_ONCE(sk->sk_tsflags) & RX_TIMESTAMPING)
		set |= XLB_OPTION_STAMPS;
	if (tp->recvmsg_inq)
		set |= XLB_OPTION_INQ;
#ifdef CONFIG_NET_RX_BUSY_POLL
	if (READ_ONCE(sk->sk_ll_usec))
		set |= XLB_OPTION_BUSY_POLL;
#endif
	return set;
}

static void lend_rcvbuf(struct sock *sk, const struct sock *psk)
{
	int want = READ_ONCE(psk->sk_rcvbuf);

	/*
	 * A window that was offered is not taken back, and what it lets come in must find room: TCP
	 * would drop it, and the endpoint send it again after a time-out.
	 */
	if (psk->sk_userlocks & SOCK_RCVBUF_LOCK) {
		sk->sk_userlocks |= SOCK_RCVBUF_LOCK;
		want = max(want, tcp_space_from_win(sk, tcp_receive_window(tcp_sk(sk))));
	} else {
		want = max(want, sk->sk_rcvbuf);
	}
	WRITE_ONCE(sk->sk_rcvbuf, want);
}

static void lend_pacing(struct sock *sk, const struct sock *psk, __u8 *options)
{
	unsigned long rate = READ_ONCE(psk->sk_max_pacing_rate);

	/* As sk_setsockopt(). */
	if (cmpxchg(&sk->sk_pacing_status, SK_PACING_NONE, SK_PACING_NEEDED) == SK_PACING_NONE)
		*options |= XLB_OPTION_PACED;
	WRITE_ONCE(sk->sk_max_pacing_rate, rate);
	if (rate < READ_ONCE(sk->sk_pacing_rate))
		WRITE_ONCE(sk->sk_pacing_rate, rate);
}

/* Only for tcp_recv_timestamp(): it is the p-sock's flag that turns stamping on in the host. */
static void lend_stamps(struct sock *sk, const struct sock *psk)
{
	sock_valbool_flag(sk, SOCK_RCVTSTAMP, sock_flag(psk, SOCK_RCVTSTAMP));
	sock_valbool_flag(sk, SOCK_RCVTSTAMPNS, sock_flag(psk, SOCK_RCVTSTAMPNS));
	sock_valbool_flag(sk, SOCK_TSTAMP_NEW, sock_flag(psk, SOCK_TSTAMP_NEW));
	WRITE_ONCE(sk->sk_tsflags, READ_ONCE(psk->sk_tsflags) & RX_TIMESTAMPING);
}

void xlb_isk_lend(struct sock *sk, const struct sock *psk, __u8 *options, struct xlb_lent *lent)
{
	__u8 set = *options;

	lent->sndbuf = sk->sk_sndbuf;
	lent->rcvbuf = sk->sk_rcvbuf;
	*options &= ~XLB_OPTION_PACED;
	if (set & XLB_OPTION_SNDBUF) {
		sk->sk_userlocks |= SOCK_SNDBUF_LOCK;
		WRITE_ONCE(sk->sk_sndbuf, READ_ONCE(psk->sk_sndbuf));
	}
	if (set & XLB_OPTION_RCVBUF)
		lend_rcvbuf(sk, psk);
	if (set & XLB_OPTION_NOTSENT)
		WRITE_ONCE(tcp_sk(sk)->notsent_lowat, READ_ONCE(tcp_sk(psk)->notsent_lowat));
	if (set & XLB_OPTION_PACING)
		lend_pacing(sk, psk, options);
	if (set & XLB_OPTION_STAMPS)
		lend_stamps(sk, psk);
#ifdef CONFIG_NET_RX_BUSY_POLL
	if (set & XLB_OPTION_BUSY_POLL) {
		WRITE_ONCE(sk->sk_ll_usec, READ_ONCE(psk->sk_ll_usec));
		WRITE_ONCE(sk->sk_prefer_busy_poll, READ_ONCE(psk->sk_prefer_busy_poll));
		WRITE_ONCE(sk->sk_busy_poll_budget, READ_ONCE(psk->sk_busy_poll_budget));
	}
#endif
}

/* Mirrors xlb_isk_lend(), with the same options. */
void xlb_isk_take_back(struct sock *sk, __u8 *options, const struct xlb_lent *lent)
{
	__u8 set = *options;
	int rcvbuf = lent->rcvbuf;

	if (set & XLB_OPTION_SNDBUF) {
		sk->sk_userlocks &= ~SOCK_SNDBUF_LOCK;
		WRITE_ONCE(sk->sk_sndbuf, lent->sndbuf);
	}
	if (set & XLB_OPTION_RCVBUF) {
		/* Without the lock TCP may have grown it, and it keeps that. */
		if (!(sk->sk_userlocks & SOCK_RCVBUF_LOCK))
			rcvbuf = max(rcvbuf, sk->sk_rcvbuf);
		sk->sk_userlocks &= ~SOCK_RCVBUF_LOCK;
		WRITE_ONCE(sk->sk_rcvbuf, rcvbuf);
	}
	if (set & XLB_OPTION_NOTSENT)
		WRITE_ONCE(tcp_sk(sk)->notsent_lowat, 0);
	if (set & XLB_OPTION_PACING) {
		WRITE_ONCE(sk->sk_max_pacing_rate, ~0UL);
		if (set & XLB_OPTION_PACED)
			cmpxchg(&sk->sk_pacing_status, SK_PACING_NEEDED, SK_PACING_NONE);
		*options &= ~XLB_OPTION_PACED;
	}
	if (set & XLB_OPTION_STAMPS) {
		sock_reset_flag(sk, SOCK_RCVTSTAMP);
		sock_reset_flag(sk, SOCK_RCVTSTAMPNS);
		sock_reset_flag(sk, SOCK_TSTAMP_NEW);
		WRITE_ONCE(sk->sk_tsflags, 0);
	}
#ifdef CONFIG_NET_RX_BUSY_POLL
	if (set & XLB_OPTION_BUSY_POLL)
		WRITE_ONCE(sk->sk_ll_usec, 0);
#endif
}

/*
 * One call of recvmsg() on a p-sock may be several on i-socks, and each of them stamps: as in TCP the
 * program gets the stamp of the last. 
 */
void xlb_msg_control_before(struct msghdr *msg, struct xlb_control *mark)
{
	if (!mark->begun) {
		mark->begun = 1;
		mark->start = msg->msg_control;
		mark->start_len = msg->msg_controllen;
	}
	mark->end = msg->msg_control;
	mark->end_len = msg->msg_controllen;
	msg->msg_control = mark->start;
	msg->msg_controllen = mark->start_len;
}

void xlb_msg_control_after(struct msghdr *msg, const struct xlb_control *mark)
{
	if (msg->msg_controllen != mark->start_len)
		return;
	msg->msg_control = mark->end;
	msg->msg_controllen = mark->end_len;
}

int xlb_msg_wants_inq(const struct msghdr *msg)
{
	return msg->msg_get_inq;
}

/* As tcp_recvmsg(): for io_uring, and with TCP_INQ for the program. */
void xlb_msg_inq(struct msghdr *msg, int unread, int as_control)
{
	msg->msg_inq = unread;
	if (as_control)
		put_cmsg(msg, SOL_TCP, TCP_CM_INQ, sizeof(unread), &unread);
}

#ifdef CONFIG_NET_RX_BUSY_POLL
/* In RCU. */
static bool busy_poll_end(void *p, unsigned long start)
{
	struct sock *sk = p;

	return xlb_psock_readable(xlb_sk_psock(sk), 1) || READ_ONCE(sk->sk_err) ||
	       READ_ONCE(sk->sk_shutdown) & RCV_SHUTDOWN || sk_busy_loop_timeout(sk, start);
}

/* As tcp_recvmsg(), on the queue that xlb_sk_learn() knows. */
void xlb_sk_busy_poll(struct sock *sk, bool nonblock)
{
	unsigned int napi_id = READ_ONCE(sk->sk_napi_id);
	bool readable;

	if (!napi_id_valid(napi_id))
		return;
	rcu_read_lock();
	readable = xlb_psock_readable(xlb_sk_psock(sk), 1);
	rcu_read_unlock();
	if (!readable)
		napi_busy_loop(napi_id, nonblock ? NULL : busy_poll_end, sk,
			       READ_ONCE(sk->sk_prefer_busy_poll),
			       READ_ONCE(sk->sk_busy_poll_budget) ?: BUSY_POLL_BUDGET);
}
#endif

/* SO_INCOMING_CPU and SO_INCOMING_NAPI_ID, and the queue that poll(2) busy-polls: the connection's. */
void xlb_sk_learn(struct sock *psk, const struct sock *sk)
{
	int cpu = READ_ONCE(sk->sk_incoming_cpu);
#ifdef CONFIG_NET_RX_BUSY_POLL
	unsigned int napi_id = READ_ONCE(sk->sk_napi_id);

	if (READ_ONCE(psk->sk_napi_id) != napi_id)
		WRITE_ONCE(psk->sk_napi_id, napi_id);
#endif
	if (READ_ONCE(psk->sk_incoming_cpu) != cpu)
		WRITE_ONCE(psk->sk_incoming_cpu, cpu);
}
