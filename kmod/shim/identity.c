// SPDX-License-Identifier: GPL-2.0
/*
 * Who a client is to the network and to the host's rules, and how an i-sock becomes that.
 *
 * xlb_identity_read() takes from a p-sock what decides the fate of its packets: addresses, device,
 * mark, classes, owner, label, cgroup, and how TCP treats the connection.  xlb_isk_create() and
 * xlb_isk_connect() give an i-sock the same before its first packet, so that rules see what they
 * would see had the client connected by itself.  Both lists of fields are here, next to each other:
 * what is read and not applied would split pools for nothing, what is applied and not read would
 * be shared between clients that differ.
 *
 * Sockets that carry what cannot be given to another one stay plain TCP: xlb_sk_portable().
 */
#include <linux/bpf.h>
#include <linux/bpf-cgroup.h>
#include <linux/cgroup.h>
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/memcontrol.h>
#include <linux/net.h>
#include <linux/security.h>
#include <net/cls_cgroup.h>
#include <net/inet_ecn.h>
#include <net/ipv6.h>
#include <net/netprio_cgroup.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "xlb_shim.h"
#include "xlb_proto.h"

/*
 * An endpoint that has died without a word is found out in 30 seconds at most when nothing is on the
 * way to it (15 + 3 * 5), in about as many when something is: 15 retransmissions (tcp_retries2) of at most 2
 * seconds each.  Not by a user time-out: with one TCP also ends a connection whose peer answers each
 * probe and has no window, that is, one which only reads slowly (tcp_probe_timer()).
 */
#define KEEP_IDLE (15 * HZ)
#define KEEP_INTERVAL (5 * HZ)
#define KEEP_PROBES 3
#define RTO_MAX (2 * HZ)

/* The module's own credentials: for what the client was allowed to set, and may not set any more. */
static const struct cred *own_cred;

/* As the inode of any socket but for lockdep: this one is locked inside a p-sock's lock, and inode. */
static struct lock_class_key isk_inode_key;

int xlb_identity_init(void)
{
	own_cred = prepare_kernel_cred(&init_task);
	return own_cred ? 0 : -ENOMEM;
}

void xlb_identity_exit(void)
{
	put_cred(own_cred);
}

/* ---- what a client is ---------------------------------------------------------- */

/*
 * Whether an i-sock can be all that sk is.  IP options (also those of a labelled network, CIPSO and
 * CALIPSO), a policy for IPsec of its own, keys that sign segments and filters belong to one socket.
 */
bool xlb_sk_portable(const struct sock *sk)
{
	const struct ip_options_rcu *opt = rcu_dereference_check(inet_sk(sk)->inet_opt, true);

	if ((opt && opt->opt.optlen) || rcu_access_pointer(sk->sk_filter))
		return false;
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6 && (rcu_access_pointer(inet6_sk(sk)->opt) ||
					  rcu_access_pointer(inet_sk(sk)->ipv6_fl_list)))
		return false;
#endif
#ifdef CONFIG_XFRM
	if (rcu_access_pointer(sk->sk_policy[0]) || rcu_access_pointer(sk->sk_policy[1]))
		return false;
#endif
#ifdef CONFIG_TCP_MD5SIG
	if (rcu_access_pointer(tcp_sk(sk)->md5sig_info))
		return false;
#endif
#ifdef CONFIG_TCP_AO
	if (rcu_access_pointer(tcp_sk(sk)->ao_info))
		return false;
#endif
	return true;
}

/* Options with which a socket stops being portable; a p-sock cannot have them. */
bool xlb_option_is_portable(int level, int optname)
{
	switch (level) {
	case SOL_SOCKET:
		return optname != SO_ATTACH_FILTER && optname != SO_ATTACH_BPF;
	case SOL_TCP:
		return optname != TCP_MD5SIG && optname != TCP_MD5SIG_EXT &&
		       optname != TCP_AO_ADD_KEY && optname != TCP_AO_INFO;
	case SOL_IP:
		return optname != IP_OPTIONS && optname != IP_IPSEC_POLICY &&
		       optname != IP_XFRM_POLICY;
	case SOL_IPV6:
		return optname != IPV6_HOPOPTS && optname != IPV6_RTHDRDSTOPTS &&
		       optname != IPV6_RTHDR && optname != IPV6_DSTOPTS &&
		       optname != IPV6_2292PKTOPTIONS && optname != IPV6_FLOWLABEL_MGR &&
		       optname != IPV6_IPSEC_POLICY && optname != IPV6_XFRM_POLICY;
	}
	return true;
}

/* The credentials that the client's socket was made with, as the owner matches of netfilter see them. */
const struct cred *xlb_sk_cred(const struct sock *sk)
{
	const struct file *file = sk->sk_socket ? sk->sk_socket->file : NULL;

	return file ? get_cred(file->f_cred) : get_current_cred();
}

/* Those of who connects, and so of who the connections are for. */
const struct cred *xlb_current_cred(void)
{
	return get_current_cred();
}

const struct cred *xlb_cred_get(const struct cred *cred)
{
	return get_cred(cred);
}

void xlb_cred_put(const struct cred *cred)
{
	put_cred(cred);
}

int xlb_cred_same_groups(const struct cred *a, const struct cred *b)
{
	const struct group_info *ga = a->group_info, *gb = b->group_info;

	return ga == gb || (ga->ngroups == gb->ngroups &&
			    !memcmp(ga->gid, gb->gid, ga->ngroups * sizeof(ga->gid[0])));
}

/* Connected over IPv6, not to a mapped address. */
static bool is_v6(const struct sock *sk)
{
#if IS_ENABLED(CONFIG_IPV6)
	return sk->sk_family == AF_INET6 && !ipv6_addr_v4mapped(&sk->sk_v6_daddr);
#else
	return false;
#endif
}

static void read_source(const struct sock *psk, struct xlb_identity *id)
{
	struct in6_addr addr = {};

	if (psk->sk_userlocks & SOCK_BINDPORT_LOCK)
		id->source_port = inet_sk(psk)->inet_num;
	id->port_range = READ_ONCE(inet_sk(psk)->local_port_range);
	if (!(psk->sk_userlocks & SOCK_BINDADDR_LOCK))
		return;
#if IS_ENABLED(CONFIG_IPV6)
	if (psk->sk_family == AF_INET6)
		addr = psk->sk_v6_rcv_saddr;
	else
#endif
		ipv6_addr_set_v4mapped(psk->sk_rcv_saddr, &addr);
	/* Nothing is sent from such an address. */
	if (ipv6_addr_is_multicast(&addr) ||
	    (ipv6_addr_v4mapped(&addr) && ipv4_is_multicast(addr.s6_addr32[3])))
		return;
	memcpy(id->source, &addr, 16);
}

static void read_ip(const struct sock *psk, struct xlb_identity *id)
{
	const struct inet_sock *inet = inet_sk(psk);

	id->bound_dev_if = READ_ONCE(psk->sk_bound_dev_if);
	id->mark = READ_ONCE(psk->sk_mark);
	id->priority = READ_ONCE(psk->sk_priority);
	id->txrehash = READ_ONCE(psk->sk_txrehash);
#if IS_ENABLED(CONFIG_IPV6)
	if (is_v6(psk)) {
		const struct ipv6_pinfo *np = inet6_sk(psk);

		id->v6 = 1;
		id->tos = READ_ONCE(np->tclass);
		id->ttl = READ_ONCE(np->hop_limit);
		id->min_ttl = READ_ONCE(np->min_hopcount);
		id->pmtudisc = READ_ONCE(np->pmtudisc);
		id->srcprefs = READ_ONCE(np->srcprefs);
	} else
#endif
	{
		id->tos = READ_ONCE(inet->tos);
		id->ttl = READ_ONCE(inet->uc_ttl);
		id->min_ttl = READ_ONCE(inet->min_ttl);
		id->pmtudisc = READ_ONCE(inet->pmtudisc);
	}
	/* TCP's own part. */
	id->tos &= ~INET_ECN_MASK;
	if (sock_flag(psk, SOCK_LOCALROUTE))
		id->flags |= XLB_IDENTITY_DONTROUTE;
	if (inet_test_bit(FREEBIND, psk))
		id->flags |= XLB_IDENTITY_FREEBIND;
	if (inet_test_bit(TRANSPARENT, psk))
		id->flags |= XLB_IDENTITY_TRANSPARENT;
	if (psk->sk_reuse)
		id->flags |= XLB_IDENTITY_REUSE;
	if (psk->sk_reuseport)
		id->flags |= XLB_IDENTITY_REUSEPORT;
}

/* What the client has set wins over our own, and so does a host that is stricter than we are. */
static void read_tcp(const struct sock *psk, struct xlb_identity *id)
{
	const struct inet_connection_sock *icsk = inet_csk(psk);
	const struct netns_ipv4 *ipv4 = &sock_net(psk)->ipv4;
	const struct tcp_sock *tp = tcp_sk(psk);
	int probes = READ_ONCE(ipv4->sysctl_tcp_keepalive_probes);

	strscpy_pad(id->congestion, icsk->icsk_ca_ops->name);
	id->mss = READ_ONCE(tp->rx_opt.user_mss);
	id->keep_idle = READ_ONCE(tp->keepalive_time)
				?: min(READ_ONCE(ipv4->sysctl_tcp_keepalive_time), KEEP_IDLE);
	id->keep_interval = READ_ONCE(tp->keepalive_intvl)
				    ?: min(READ_ONCE(ipv4->sysctl_tcp_keepalive_intvl),
					   KEEP_INTERVAL);
	id->keep_probes = READ_ONCE(tp->keepalive_probes) ?: min(probes, KEEP_PROBES);
	id->user_timeout_ms = READ_ONCE(icsk->icsk_user_timeout);
	id->rto_max = READ_ONCE(icsk->icsk_rto_max);
	if (!id->user_timeout_ms &&
	    id->rto_max == msecs_to_jiffies(READ_ONCE(ipv4->sysctl_tcp_rto_max_ms)))
		id->rto_max = min(id->rto_max, RTO_MAX);
}

/*
 * A program that is attached later would not be asked for what is idle by then: who connects from
 * now on has connections of its own.  Programs have numbers that are not used again for long.
 */
static __u64 read_programs(const struct sock *psk)
{
	__u64 sum = 0;
#ifdef CONFIG_CGROUP_BPF
	static const enum cgroup_bpf_attach_type asked[] = {
		CGROUP_INET_SOCK_CREATE, CGROUP_INET4_BIND,	 CGROUP_INET6_BIND,
		CGROUP_INET4_POST_BIND,	 CGROUP_INET6_POST_BIND, CGROUP_INET4_CONNECT,
		CGROUP_INET6_CONNECT,	 CGROUP_SOCK_OPS,
	};
	const struct cgroup *cgrp = sock_cgroup_ptr((struct sock_cgroup_data *)&psk->sk_cgrp_data);
	const struct bpf_prog_array_item *item;
	const struct bpf_prog_array *array;
	int i;

	rcu_read_lock();
	for (i = 0; i < ARRAY_SIZE(asked); i++) {
		array = rcu_dereference(cgrp->bpf.effective[asked[i]]);
		for (item = array ? array->items : NULL; item && item->prog; item++)
			/* One that is being detached has none. */
			if (item->prog->aux)
				sum = (sum ^ (item->prog->aux->id + i)) * 0x100000001b3;
	}
	rcu_read_unlock();
#endif
	return sum;
}

static void read_owner(struct sock *psk, const struct cred *cred, struct xlb_identity *id)
{
	struct flowi_common flow = {};
	struct lsm_prop prop;

	static_assert(sizeof(prop) <= sizeof(id->lsm));
	memset(&prop, 0, sizeof(prop));
	id->net = (__u64)(unsigned long)sock_net(psk);
	id->netns = sock_net(psk)->ns.inum;
	id->cgroup_id = xlb_sk_cgroup_id(psk);
	id->programs = read_programs(psk);
#ifdef CONFIG_SOCK_CGROUP_DATA
	id->classid = sock_cgroup_classid(&psk->sk_cgrp_data);
	id->prioidx = sock_cgroup_prioidx(&psk->sk_cgrp_data);
#endif
	id->uid = __kuid_val(sk_uid(psk));
	id->fsuid = __kuid_val(cred->fsuid);
	id->fsgid = __kgid_val(cred->fsgid);
	/* Label of the socket; of its maker, which is a pointer for some: the identity holds cred. */
	security_sk_classify_flow(psk, &flow);
	id->secid = flow.flowic_secid;
	security_cred_getlsmprop(cred, &prop);
	memcpy(id->lsm, &prop, sizeof(prop));
}

void xlb_identity_read(struct sock *psk, const struct cred *cred, struct xlb_identity *id)
{
	memset(id, 0, sizeof(*id));
	read_source(psk, id);
	read_ip(psk, id);
	read_tcp(psk, id);
	read_owner(psk, cred, id);
}

/* ---- what an i-sock becomes ------------------------------------------------------ */

/*
 * The cgroups of sk become those of psk: sock_create_kern() takes the current task's, and that
 * may be a worker, or a process that was given the client's socket.  sk was never used.
 */
static void take_cgroups(struct sock *sk, const struct sock *psk)
{
#ifdef CONFIG_SOCK_CGROUP_DATA
	struct cgroup *from = sock_cgroup_ptr(&sk->sk_cgrp_data);
	struct cgroup *to = sock_cgroup_ptr((struct sock_cgroup_data *)&psk->sk_cgrp_data);

	if (from != to) {
		/* As cgroup_sk_clone() and cgroup_sk_free(). */
		cgroup_get(to);
		cgroup_bpf_get(to);
		cgroup_bpf_put(from);
		cgroup_put(from);
	}
	/* Class and priority of cgroup v1, too. */
	sk->sk_cgrp_data = psk->sk_cgrp_data;
#endif
#ifdef CONFIG_MEMCG
	if (sk->sk_memcg != psk->sk_memcg) {
		if (psk->sk_memcg)
			css_get(&psk->sk_memcg->css);
		if (sk->sk_memcg)
			css_put(&sk->sk_memcg->css);
		sk->sk_memcg = psk->sk_memcg;
	}
#endif
}

static void apply_ip(struct sock *sk, const struct xlb_identity *id)
{
	struct inet_sock *inet = inet_sk(sk);
	bool v6 = sk->sk_family == AF_INET6;
	bool same = v6 == id->v6;

	WRITE_ONCE(sk->sk_bound_dev_if, id->bound_dev_if);
	WRITE_ONCE(sk->sk_mark, id->mark);
	WRITE_ONCE(sk->sk_priority, id->priority);
	WRITE_ONCE(sk->sk_txrehash, id->txrehash);
	WRITE_ONCE(inet->local_port_range, id->port_range);
	WRITE_ONCE(inet->tos, id->tos);
	WRITE_ONCE(inet->uc_ttl, id->ttl);
	if (same && !v6) {
		WRITE_ONCE(inet->min_ttl, id->min_ttl);
		WRITE_ONCE(inet->pmtudisc, id->pmtudisc);
	}
#if IS_ENABLED(CONFIG_IPV6)
	if (v6) {
		struct ipv6_pinfo *np = inet6_sk(sk);

		WRITE_ONCE(np->tclass, id->tos);
		WRITE_ONCE(np->hop_limit, id->ttl);
		if (same) {
			WRITE_ONCE(np->min_hopcount, id->min_ttl);
			WRITE_ONCE(np->pmtudisc, id->pmtudisc);
			WRITE_ONCE(np->srcprefs, id->srcprefs);
		}
	}
#endif
	sock_valbool_flag(sk, SOCK_LOCALROUTE, id->flags & XLB_IDENTITY_DONTROUTE);
	inet_assign_bit(FREEBIND, sk, id->flags & XLB_IDENTITY_FREEBIND);
	inet_assign_bit(TRANSPARENT, sk, id->flags & XLB_IDENTITY_TRANSPARENT);
	/* An address without a port: the port is chosen at the connect, for this endpoint. */
	inet_set_bit(BIND_ADDRESS_NO_PORT, sk);
}

static void apply_tcp(struct sock *sk, const struct xlb_identity *id)
{
	struct inet_connection_sock *icsk = inet_csk(sk);
	struct tcp_sock *tp = tcp_sk(sk);

	WRITE_ONCE(tp->rx_opt.user_mss, id->mss);
	/* tcp_finish_connect() starts the timer. */
	sock_set_flag(sk, SOCK_KEEPOPEN);
	WRITE_ONCE(tp->keepalive_time, id->keep_idle);
	WRITE_ONCE(tp->keepalive_intvl, id->keep_interval);
	WRITE_ONCE(tp->keepalive_probes, id->keep_probes);
	WRITE_ONCE(icsk->icsk_user_timeout, id->user_timeout_ms);
	WRITE_ONCE(icsk->icsk_rto_max, id->rto_max);
}

static int apply_congestion(struct sock *sk, const struct xlb_identity *id)
{
	const struct cred *before;
	int err;

	if (!strcmp(inet_csk(sk)->icsk_ca_ops->name, id->congestion))
		return 0;
	/* One that is restricted was given to the client's socket by somebody who may. */
	before = override_creds(own_cred);
	err = tcp_prot.setsockopt(sk, SOL_TCP, TCP_CONGESTION,
				  KERNEL_SOCKPTR((void *)id->congestion), strlen(id->congestion));
	revert_creds(before);
	return err;
}

static int become(struct socket *sock, const struct xlb_identity *id, const struct sock *psk)
{
	struct sock *sk = sock->sk;
	int err;

	take_cgroups(sk, psk);
	security_sk_clone(psk, sk);
	/* inet_create() asks these for programs' sockets only.  What they set, the client's own sets again. */
	err = BPF_CGROUP_RUN_PROG_INET_SOCK(sk);
	if (err)
		return err;
	lock_sock(sk);
	WRITE_ONCE(sk->sk_uid, KUIDT_INIT(id->uid));
	apply_ip(sk, id);
	apply_tcp(sk, id);
	release_sock(sk);
	return apply_congestion(sk, id);
}

/*
 * The socket has a file because the owner matches of netfilter read uid and groups off its credentials
 * (nft_meta, xt_owner), and in nothing else.
 */
int xlb_isk_create(const struct xlb_identity *id, const struct cred *cred, int family,
		   const struct sock *psk, struct socket **res)
{
	const struct cred *before = override_creds(cred);
	struct socket *sock;
	struct file *file;
	int err;

	err = sock_create_kern((struct net *)(unsigned long)id->net, family, SOCK_STREAM,
			       IPPROTO_TCP, &sock);
	if (err)
		goto out;
	lockdep_set_class(&SOCK_INODE(sock)->i_rwsem, &isk_inode_key);
	file = sock_alloc_file(sock, O_NONBLOCK, NULL);
	if (IS_ERR(file)) {
		/* It has released the socket. */
		err = PTR_ERR(file);
		goto out;
	}
	err = become(sock, id, psk);
	if (err)
		__fput_sync(file);
	else
		*res = sock;
out:
	revert_creds(before);
	return err;
}

void xlb_isk_destroy(struct socket *sock)
{
	BPF_CGROUP_RUN_PROG_INET_SOCK_RELEASE(sock->sk);
	__fput_sync(sock->file);
}

static int to_sockaddr(int family, const __u8 addr[16], __u16 port, int scope,
		       struct sockaddr_storage *ss)
{
	struct sockaddr_in *sin = (struct sockaddr_in *)ss;
	struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)ss;

	if (family == AF_INET) {
		sin->sin_family = AF_INET;
		memcpy(&sin->sin_addr, addr + 12, 4);
		sin->sin_port = htons(port);
		return sizeof(*sin);
	}
	sin6->sin6_family = AF_INET6;
	memcpy(&sin6->sin6_addr, addr, 16);
	sin6->sin6_port = htons(port);
	sin6->sin6_scope_id = scope;
	return sizeof(*sin6);
}

/*
 * The source that the client has bound.  It holds the port itself, in TCP's table of bound ports and
 * in no other: we share it as sockets with SO_REUSEADDR do.
 */
static int bind_source(struct socket *sock, const struct xlb_identity *id)
{
	const struct in6_addr *source = (const struct in6_addr *)id->source;
	struct sockaddr_storage ss = {};
	struct sock *sk = sock->sk;
	const struct cred *before;
	int len, err;

	if (ipv6_addr_any(source) && !id->source_port)
		return 0;
	if (!ipv6_addr_any(source) && ipv6_addr_v4mapped(source) != (sk->sk_family == AF_INET))
		return -EADDRNOTAVAIL;
	len = to_sockaddr(sk->sk_family, id->source, id->source_port, id->bound_dev_if, &ss);
	sk->sk_reuse = SK_FORCE_REUSE;
	/* And with who binds it after us, as the client's socket does. */
	sk->sk_reuseport = !!(id->flags & XLB_IDENTITY_REUSEPORT);
	/* The client was allowed to bind it, whatever it may do now. */
	before = override_creds(own_cred);
	err = kernel_bind(sock, (void *)&ss, len);
	revert_creds(before);
	sk->sk_reuse = id->flags & XLB_IDENTITY_REUSE ? SK_CAN_REUSE : SK_NO_REUSE;
	return err;
}

static int nothing_sent(struct socket *sock, struct msghdr *msg, size_t len)
{
	return 0;
}

static const struct proto_ops asking_ops = {
	.owner = THIS_MODULE,
	.sendmsg = nothing_sent,
};

/*
 * Asks the LSMs whether the current credentials may connect to this address.  A module cannot call
 * security_socket_connect(), but sendmsg(MSG_FASTOPEN) is a connect too, and Landlock, SELinux and
 * AppArmor take it for one in security_socket_sendmsg(), which sock_sendmsg() calls first.  Then it
 * would send; here nothing is.  Only the owner of an i-sock looks at sock->ops.
 */
static int ask_lsm(struct socket *sock, struct sockaddr_storage *ss, int len)
{
	const struct proto_ops *ops = sock->ops;
	struct msghdr msg = {
		.msg_name = ss,
		.msg_namelen = len,
		.msg_flags = MSG_FASTOPEN | MSG_DONTWAIT | MSG_NOSIGNAL,
	};
	int err;

	WRITE_ONCE(sock->ops, &asking_ops);
	err = sock_sendmsg(sock, &msg);
	WRITE_ONCE(sock->ops, ops);
	return err;
}

int xlb_isk_may_use(struct socket *sock, const struct cred *cred, const __u8 addr[16], __u16 port)
{
	const struct cred *before = override_creds(cred);
	struct sockaddr_storage ss = {};
	int err, len;

	len = to_sockaddr(sock->sk->sk_family, addr, port, 0, &ss);
	err = ask_lsm(sock, &ss, len);
	revert_creds(before);
	return err;
}

int xlb_isk_connect(struct socket *sock, const struct xlb_identity *id, const struct cred *cred,
		    const __u8 addr[16], __u16 port)
{
	struct sockaddr_storage ss = {};
	const struct cred *before;
	int err, len;

	err = bind_source(sock, id);
	if (err)
		return err;
	len = to_sockaddr(sock->sk->sk_family, addr, port, 0, &ss);
	/* The connect programs of cgroups, too, may ask who it is. */
	before = override_creds(cred);
	err = ask_lsm(sock, &ss, len);
	if (!err)
		/* void *: the type of the address changed in 6.19. */
		err = kernel_connect(sock, (void *)&ss, len, O_NONBLOCK);
	revert_creds(before);
	return err;
}
