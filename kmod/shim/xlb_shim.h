/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Between the C shim and the module's Rust.
 *
 * Only what cannot be Rust is C: kernel macros and inline functions, tables of
 * function pointers whose types differ between kernel versions, and everything
 * that BPF must find in BTF (pahole skips Rust units).  No policy, no parsing and
 * no state lives in C.  bindgen reads this header for both directions.
 */
#ifndef XLB_SHIM_H
#define XLB_SHIM_H

#include "../include/xlb_intf.h"

struct sock;
struct socket;
struct msghdr;
struct net;
struct file;
struct cred;
struct bpf_map;
struct xlb_psock; /* psock/ */
struct xlb_isock; /* isock/ */

typedef _Bool xlb_bool;

/* ---- C, called by Rust ---------------------------------------------------- */

/* sock.c: sockets.  "locked" means that the caller holds lock_sock(sk). */
void xlb_lock_sock(struct sock *sk);
void xlb_release_sock(struct sock *sk);
int xlb_sk_lock_or_defer(struct sock *sk); /* 1: locked; 0: xlb_psock_defer() was called */
int xlb_sk_try_lock(struct sock *sk); /* 1: locked; 0: it has an owner */
void xlb_sk_orphan(struct sock *sk); /* locked */
void xlb_sk_close(struct sock *sk); /* proto.c: the end of a p-sock that xlb_psock_close() kept */
struct xlb_psock *xlb_sk_psock(const struct sock *sk); /* locked, or in RCU */
/* In RCU, psock found in that section: a reference to the file of its socket; NULL when that is closed. */
struct file *xlb_sk_get_file(const struct sock *sk, const struct xlb_psock *psock);
void xlb_put_file(struct file *file);
/* proto.c: the socket becomes a closed one of TCP's; locked, with a reference to its file. */
void xlb_sk_leave(struct sock *sk);
/* proto.c: afterwards; the p-sock goes when nobody is in a call with it any more. */
void xlb_psock_leave(struct xlb_psock *psock);
int xlb_sk_state(const struct sock *sk);
unsigned int xlb_sk_shutdown(const struct sock *sk);
void xlb_sk_shut(struct sock *sk, unsigned int how); /* locked; RCV_SHUTDOWN and/or SEND_SHUTDOWN */
int xlb_sk_has_error(const struct sock *sk);
int xlb_sk_take_error(struct sock *sk); /* locked */
void xlb_sk_set_error(struct sock *sk, int err); /* locked; err > 0 */
int xlb_sk_resets_on_close(const struct sock *sk); /* locked; SO_LINGER of 0 seconds */
void xlb_sk_data_ready(struct sock *sk); /* in RCU */
void xlb_sk_write_space(struct sock *sk); /* in RCU */
void xlb_sk_state_change(struct sock *sk); /* in RCU */
long xlb_sk_rcvtimeo(const struct sock *sk, int nonblock);
long xlb_sk_sndtimeo(const struct sock *sk, int nonblock);
int xlb_sk_peek_offset(const struct sock *sk); /* SO_PEEK_OFF; 0 without */
void xlb_sk_peek_moved(struct sock *sk, int flags, int copied);
int xlb_sk_rcvlowat(const struct sock *sk, int waitall, int len);
struct net *xlb_sk_net(const struct sock *sk);
__u32 xlb_net_inum(const struct net *net);
__u64 xlb_sk_cgroup_id(const struct sock *sk);
__u64 xlb_sk_source(const struct sock *sk);
__u64 xlb_sk_cookie(struct sock *sk);
void xlb_sk_peer(const struct sock *sk, __u8 addr[16], __u16 *port); /* in RCU */
/* Sleep, unlocked, until the socket is ready, a signal or the time-out; locked on return. */
int xlb_sk_wait_readable(struct sock *sk, long *timeo,
			 __u32 target); /* `target` bytes, or an end */
int xlb_sk_wait_writable(struct sock *sk, long *timeo); /* -errno also for signal and time-out */
int xlb_sk_send_error(struct sock *sk, int flags, int err); /* raises SIGPIPE */
/*
 * The completion of one sendmsg(MSG_ZEROCOPY), socket locked: NULL where none was asked for, or
 * ERR_PTR(-ENOBUFS).  The end says how many bytes were taken; without any there is no completion.
 */
struct ubuf_info *xlb_sk_zerocopy_begin(struct sock *sk, size_t len, int flags);
void xlb_sk_zerocopy_end(struct ubuf_info *uarg, size_t taken);
int xlb_intr_errno(long timeo);
int xlb_signal_pending(void);
int xlb_sk_linger(long *timeo); /* sleeps for a moment; 1: the time is over, or a signal came */

/* The user's message. */
size_t xlb_msg_left(const struct msghdr *msg);
size_t xlb_msg_copy_in(struct msghdr *msg, void *to, size_t len);
void xlb_msg_skip(struct msghdr *msg, size_t len);
size_t xlb_msg_copy_out(struct msghdr *msg, const void *from, size_t len);

/* identity.c: who a client is to the network and to the host's rules.  Compared as bytes: no padding. */
struct xlb_identity {
	__u64 net; /* address of the netns; only compared, but by who holds a socket of it */
	__u64 cgroup_id;
	__u64 programs; /* which BPF programs of the cgroup were asked for its connections */
	__u64 lsm[4]; /* struct lsm_prop of who made the socket */
	__u8 source[16]; /* bound address, IPv4 as ::ffff:a.b.c.d; all 0: none */
	char congestion[16];
	__u32 netns; /* inode number */
	__u32 uid; /* of the socket (ip rule uidrange), then of its maker (owner matches) */
	__u32 fsuid;
	__u32 fsgid;
	__u32 secid;
	__u32 classid; /* cgroup v1: net_cls, net_prio */
	__u32 prioidx;
	__u32 bound_dev_if;
	__u32 mark;
	__u32 priority;
	__u32 port_range;
	__u32 keep_idle; /* jiffies, as the next one and rto_max */
	__u32 keep_interval;
	__u32 user_timeout_ms;
	__u32 rto_max;
	__u16 source_port; /* host order */
	__u16 mss;
	__s16 ttl;
	__u8 tos; /* or traffic class */
	__u8 min_ttl;
	__u8 pmtudisc;
	__u8 srcprefs;
	__u8 keep_probes;
	__u8 txrehash;
	__u8 v6; /* of which family ttl, min_ttl, pmtudisc and srcprefs are */
	__u8 flags; /* XLB_IDENTITY_* */
	__u8 reserved0[6];
};
_Static_assert(sizeof(struct xlb_identity) == 168, "compared and hashed as bytes");
enum {
	XLB_IDENTITY_DONTROUTE = 1,
	XLB_IDENTITY_FREEBIND = 2,
	XLB_IDENTITY_TRANSPARENT = 4,
	XLB_IDENTITY_REUSE = 8,
	XLB_IDENTITY_REUSEPORT = 16,
};
int xlb_identity_init(void);
void xlb_identity_exit(void);
const struct cred *xlb_sk_cred(const struct sock *sk); /* locked; with a reference */
const struct cred *xlb_current_cred(void); /* with a reference */
const struct cred *xlb_cred_get(const struct cred *cred);
void xlb_cred_put(const struct cred *cred);
int xlb_cred_same_groups(const struct cred *a, const struct cred *b);
void xlb_identity_read(struct sock *psk, const struct cred *cred,
		       struct xlb_identity *id); /* locked */
/* An i-sock with this identity, in the cgroups of the p-sock psk; the netns is held by the caller. */
int xlb_isk_create(const struct xlb_identity *id, const struct cred *cred, int family,
		   const struct sock *psk, struct socket **res);
int xlb_isk_connect(struct socket *sock, const struct xlb_identity *id, const struct cred *cred,
		    const __u8 addr[16], __u16 port);

/* Whether the LSMs let who has cred use this connection to addr:port: 0 or -errno. */
int xlb_isk_may_use(struct socket *sock, const struct cred *cred, const __u8 addr[16], __u16 port);

/* isock.c: i-socks. */
void xlb_isk_start(struct socket *sock, struct xlb_isock *isock);
void xlb_isk_stop(struct socket *sock);
void xlb_isk_release(struct socket *sock,
		     int abort); /* abort: RST, and no reference to the netns */
struct sock *xlb_socket_sk(const struct socket *sock);
int xlb_isk_idle_ok(const struct sock *sk); /* established, nothing to read, no error */
int xlb_isk_send_buf(struct sock *sk, const void *buf, size_t len, int flags); /* locked */
int xlb_isk_send_msg(struct sock *sk, struct msghdr *msg, size_t len, int more); /* locked */
int xlb_isk_recv_msg(struct sock *sk, struct msghdr *msg, size_t len, int flags);
int xlb_isk_peek_msg(struct sock *sk, struct msghdr *msg, size_t len, int flags, __u32 off);
int xlb_isk_recv_buf(struct sock *sk, void *buf, size_t len, int flags);
size_t xlb_isk_peek(struct sock *sk, __u32 off, const __u8 **data); /* locked */
int xlb_isk_inq(const struct sock *sk);
int xlb_isk_outq(const struct sock *sk);
int xlb_isk_flying(const struct sock *sk); /* sent and not acknowledged */
int xlb_isk_readable(const struct sock *sk); /* in RCU */
int xlb_isk_readable_to(const struct sock *sk,
			int target); /* with a reference: so many bytes, or no more will come */
int xlb_isk_get(struct sock *sk); /* in RCU; 0 when it is going */
void xlb_isk_put(struct sock *sk);
int xlb_isk_writable(struct sock *sk); /* in RCU, with a reference; asks for write space when not */
int xlb_isk_reset(const struct sock *sk); /* ended by an error, not by a FIN */
int xlb_isk_fin(const struct sock *sk); /* the peer has ended its side, or the connection is dead */
void xlb_isk_shut_write(struct socket *sock);

/* options.c: options of a p-sock that work on the connection behind it. */
enum xlb_option {
	XLB_OPTION_SNDBUF = 1,
	XLB_OPTION_RCVBUF = 2, /* or SO_RCVLOWAT */
	XLB_OPTION_NOTSENT = 4,
	XLB_OPTION_PACING = 8,
	XLB_OPTION_STAMPS = 16, /* SO_TIMESTAMP, SO_TIMESTAMPNS, SO_TIMESTAMPING of what comes in */
	XLB_OPTION_INQ = 32,
	XLB_OPTION_BUSY_POLL = 64,
	XLB_OPTION_PACED = 128, /* an i-sock is paced that was not before */
};
struct xlb_lent {
	__s32 sndbuf; /* what the i-sock had before */
	__s32 rcvbuf;
};
struct xlb_control {
	__u32 begun;
	void *start, *end;
	size_t start_len, end_len;
};
__u8 xlb_sk_options(const struct sock *sk); /* locked; enum xlb_option */
void xlb_isk_lend(struct sock *sk, const struct sock *psk, __u8 *options,
		  struct xlb_lent *lent); /* both locked */
void xlb_isk_take_back(struct sock *sk, __u8 *options, const struct xlb_lent *lent); /* locked */
void xlb_sk_learn(struct sock *psk, const struct sock *sk); /* psk locked */
/* Around each read on an i-sock that is a part of one recvmsg(). */
void xlb_msg_control_before(struct msghdr *msg, struct xlb_control *mark);
void xlb_msg_control_after(struct msghdr *msg, const struct xlb_control *mark);
int xlb_msg_wants_inq(const struct msghdr *msg);
void xlb_msg_inq(struct msghdr *msg, int unread, int as_control);

/* tools.c: locks, RCU, time, work. */
void xlb_spin_init(void *lock, unsigned int class_nr);
void xlb_spin_lock_bh(void *lock);
void xlb_spin_unlock_bh(void *lock);
void xlb_rcu_read_lock(void);
void xlb_rcu_read_unlock(void);
void xlb_synchronize_rcu(void);
void xlb_kfree_rcu(void *object); /* its first 16 bytes are room for the RCU head */

/* The list of p-sockets (psock/list.rs): an xarray, its entries by index.  Readers are in RCU. */
void xlb_list_init(void *xarray);
void xlb_list_exit(void *xarray);
int xlb_list_add(void *xarray, void *entry, __u32 *index); /* atomic; 0 or -ENOMEM */
void xlb_list_remove(void *xarray, __u32 index);
void *xlb_list_next(void *xarray, __u32 *index); /* the first one at *index or after */

/* Memory that clients make the module hold, charged to their cgroups. */
int xlb_psock_cache_init(__u32 size);
void xlb_psock_cache_exit(void);
void *xlb_psock_alloc(void); /* freed by xlb_kfree_rcu() */
void *xlb_client_realloc(void *p, unsigned long size); /* size 0 frees */
void *xlb_charge_begin(struct sock *sk); /* charges of this task go to the cgroup of sk */
void xlb_charge_end(void *before);

__u64 xlb_now_ns(void);
__u64 xlb_now_ms(void);
void xlb_work_init(void *delayed_work); /* runs xlb_psock_work() */
void xlb_work_kick(void *delayed_work, __u64 delay_ms);
void xlb_work_disable_sync(void *delayed_work);
void xlb_reaper_kick(__u64 delay_ms); /* runs xlb_reap() */
void xlb_reaper_stop(void);
__u32 xlb_current_tgid(void);
__u64 xlb_random_u64(void);
unsigned int xlb_cpu(void);
unsigned int xlb_cpus(void);
void xlb_smp_mb(void);
void xlb_cond_resched(void);

void xlb_count(__u32 counter, __s64 n); /* enum xlb_counter */
void xlb_count_reason(__u32 reason); /* enum xlb_reason */
void xlb_count_engine(__u32 reason); /* the engine's Reason */
void xlb_counts_from(__u64 from); /* where counters, but not gauges, begin; once, at load */
__u32 xlb_counts(void); /* how many there are with a name in C; those of the engine follow them */
void xlb_count_read(__u32 index, struct xlb_count *count);
__u64 xlb_engine_count(__u32 reason);

/* policy.c: the attached struct_ops. */
int xlb_policy_route(struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec);
int xlb_policy_pick(struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec);
void xlb_policy_done(struct xlb_exchange *ex, struct xlb_request *req, struct xlb_decision *dec,
		     struct xlb_result *res);
void xlb_policy_describe(struct xlb_info *info);

/* What the policy wants done; it has a reference to the map. */
struct xlb_actions {
	struct bpf_map *map;
	const void *first; /* struct xlb_action, every `bytes` */
	__u32 count;
	__u32 bytes;
};

const void *xlb_actions_text(const struct xlb_actions *actions, __u32 page, __u32 off, __u32 len);
void xlb_actions_put(struct xlb_actions *actions);

/* XLB_REASONS as a table; status 0: no reply is made. */
struct xlb_reply_row {
	const char *name;
	__u16 name_len;
	__u16 status;
};
extern const struct xlb_reply_row xlb_replies[XLB_REASON_COUNT];

int xlb_shim_init(void);
void xlb_shim_exit(void);

#define XLB_WORK_BYTES 256 /* room for a struct delayed_work, asserted in tools.c */
#define XLB_SPIN_BYTES 72 /* room for a spinlock_t with lockdep, asserted in tools.c */

enum xlb_lock_class {
	XLB_LOCK_POOL,
	XLB_LOCK_STRIPE,
	XLB_LOCK_TABLE,
	XLB_LOCK_DEAD,
	XLB_LOCK_ORPHANS,
	XLB_LOCK_IDENTITIES,
	XLB_LOCK_CLASSES,
};

/* errno and socket constants that Rust needs; values from the kernel's headers. */
enum {
	XLB_EAGAIN = 11,
	XLB_EPIPE = 32,
	XLB_ENOTCONN = 107,
	XLB_ECONNRESET = 104,
};

/* ---- Rust, called by C ---------------------------------------------------- */

/* psock/: the p-sock.  Locks as the proto operation of the same name has them. */
struct xlb_psock *xlb_psock_new(struct sock *sk, __u32 service); /* locked, atomic */
void xlb_psock_arm(struct xlb_psock *psock, __u32 service, int armed); /* locked */
int xlb_psock_take_armed(struct xlb_psock *psock); /* locked */
int xlb_psock_connected(struct xlb_psock *psock, const __u8 vip[16], __u16 port); /* locked */
void xlb_psock_free(struct xlb_psock *psock); /* ULP release */
int xlb_psock_is_ours(const struct xlb_psock *psock); /* connected to a VIP, not passed through */
int xlb_psock_close(struct xlb_psock *psock,
		    long timeout); /* 1: kept, and closed later by xlb_sk_close() */
void xlb_psock_defer(struct xlb_psock *psock); /* sk_lock.slock held */
int xlb_psock_take_deferred(struct xlb_psock *psock); /* sk_lock.slock held */
void xlb_psock_deferred_work(struct xlb_psock *psock); /* locked */
void xlb_psock_disconnect(struct xlb_psock *psock); /* locked */
void xlb_psock_shutdown(struct xlb_psock *psock, int how); /* locked */
int xlb_psock_sendmsg(struct xlb_psock *psock, struct msghdr *msg, size_t len, int flags);
int xlb_psock_recvmsg(struct xlb_psock *psock, struct msghdr *msg, size_t len, int flags);
/* In RCU; -1: passed through. */
int xlb_psock_readable(const struct xlb_psock *psock, __u32 target); /* to `target` bytes */
int xlb_psock_writable(const struct xlb_psock *psock);
int xlb_psock_inq(struct xlb_psock *psock);
int xlb_psock_outq(struct xlb_psock *psock);
int xlb_psock_outq_nsd(struct xlb_psock *psock);
void xlb_psock_set_options(struct xlb_psock *psock); /* not locked; an option was set */
struct sock *xlb_psock_bound(const struct xlb_psock *psock); /* in RCU; the i-sock, referenced */
int xlb_psock_has_ended(const struct xlb_psock *psock); /* no more will come */
void xlb_psock_work(void *delayed_work);

/* pool/: callbacks of i-socks; the i-sock's lock is held, softirq or backlog. */
enum xlb_isock_event { XLB_ISOCK_DATA, XLB_ISOCK_SPACE, XLB_ISOCK_STATE };
void xlb_isock_event(struct xlb_isock *isock, enum xlb_isock_event event);

/* xlb_main.rs; pool/table.rs */
void xlb_reap(void);
void xlb_net_exit(struct net *net);

/* policy/kfuncs.rs: bodies of the kfuncs; see xlb_intf.h. */
__u64 xlb_field_hash(const struct xlb_exchange *ex, __u32 field, __u32 from, __u32 to);
int xlb_field_find(const struct xlb_exchange *ex, __u32 field, __u32 from, __u32 byte);
int xlb_field_len(const struct xlb_exchange *ex, __u32 field);
int xlb_field_equal(const struct xlb_exchange *ex, __u32 field, __u32 from, const __u8 *buf,
		    __u32 len);
int xlb_field_match(const struct xlb_exchange *ex, __u32 field, const struct xlb_regex *regex,
		    const __u8 *classes, const __u16 *states, const __u32 *matches);
int xlb_field_in_range(const struct xlb_exchange *ex, __u32 field, const __u8 *buf, __u32 len);
int xlb_field_contains(const struct xlb_exchange *ex, __u32 field, __u32 from, const __u8 *buf,
		       __u32 len);
int xlb_field_needles(const struct xlb_exchange *ex, __u32 count);
int xlb_field_search(const struct xlb_exchange *ex, __u32 field, const struct xlb_needle *needle,
		     const struct xlb_search_state *states, const __u32 *shorter);
int xlb_field_want(const struct xlb_exchange *ex, __u32 kinds);
int xlb_field_want_named(const struct xlb_exchange *ex, __u32 kind, const __u8 *name, __u32 len);
int xlb_field_named(const struct xlb_exchange *ex, __u32 kind, const __u8 *name, __u32 len);
/* Takes them over. */
void xlb_act(const struct xlb_exchange *ex, const struct xlb_actions *actions);

/* control.rs */
int xlb_control(struct xlb_ctl *ctl, __u8 *buf, __u32 len);

#endif /* XLB_SHIM_H */
