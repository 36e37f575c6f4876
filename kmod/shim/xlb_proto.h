/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Between the C files of the shim.  main.c calls all others and is called by none; policy.c calls proto.c;
 * proto.c, isock.c and options.c call identity.c and sock.c; all call tools.c.
 */
#ifndef XLB_PROTO_H
#define XLB_PROTO_H

struct sock;
struct socket;

int xlb_attach(struct sock *sk, __u32 service); /* proto.c: make a p-sock; sk locked */
void xlb_proto_init(void);
void xlb_proto_exit(void);
int xlb_policy_init(void); /* policy.c */
int xlb_work_start(void); /* tools.c */
void xlb_work_stop(void); /* tools.c */
bool xlb_sk_portable(const struct sock *sk); /* identity.c; locked */
bool xlb_option_is_portable(int level, int optname); /* identity.c */
void xlb_isk_destroy(struct socket *sock); /* identity.c; undoes xlb_isk_create() */
void xlb_sk_busy_poll(struct sock *sk, bool nonblock); /* options.c; not locked */

#endif
