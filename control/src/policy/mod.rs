// SPDX-License-Identifier: GPL-2.0
//! The BPF policy, run here: `bpf/policy.bpf.c` itself, compiled by `bpf/user/policy.c`.
//!
//! What the kernel gives the programs is in this folder: maps (`maps.rs`), the module's kfuncs (`kfuncs.rs`, answered by
//! a [`View`] of the request), and the way in which the module calls. A request is a real head ([`Head`]), framed by the engine.
//!
//! ```ignore
//! let policy = Policy::new(&compiled, numbers.end());
//! let head = Head::new("GET", "/v2?a=1", &[("Host", "shop.example")])?;
//! let decision = policy.route(&mut Asked::new(&head));
//! ```
//!
//! The surprising rule: the C has no argument for its maps, so a thread runs one policy at a time, which
//! `maps::current()` knows.

mod head;
mod kfuncs;
mod maps;
mod view;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::ffi::c_int;

pub use head::Head;
pub use maps::Policy;
pub use view::View;

use crate::intf::*;

extern "C" {
    fn xlb_user_route(
        ex: *mut xlb_exchange,
        req: *mut xlb_request,
        dec: *mut xlb_decision,
    ) -> c_int;
    #[cfg(test)]
    fn xlb_user_pick(ex: *mut xlb_exchange, req: *mut xlb_request, dec: *mut xlb_decision)
        -> c_int;
    #[cfg(test)]
    fn xlb_user_done(
        ex: *mut xlb_exchange,
        req: *mut xlb_request,
        dec: *mut xlb_decision,
        res: *mut xlb_result,
    );
    fn xlb_user_vhost(ex: *mut xlb_exchange, req: *mut xlb_request) -> u32;
    fn xlb_user_condition(ex: *mut xlb_exchange, req: *mut xlb_request, index: u32) -> c_int;
}

/// How often a decision is begun at most: `kmod/policy/mod.rs`.
const ROUNDS: u32 = 8;

/// A request that the policy is asked about, as a p-sock has it.
///
/// # Invariants
///
/// `handle` is the first field: the kfuncs get its address.
#[repr(C)]
pub struct Asked<'h> {
    handle: xlb_exchange,
    request: xlb_request,
    view: View<'h>,
}

/// Of who asks here.
pub const SOURCE: u64 = 1;

/// What `route` or `pick` has said.
pub struct Decision {
    /// `enum xlb_reason`; 0: there is an endpoint.
    pub reason: u32,
    /// `route` is 0 where none matched, `cluster` where the route has none.
    pub decision: xlb_decision,
}

impl<'h> Asked<'h> {
    /// The first request of a connection.
    pub fn new(head: &'h Head) -> Asked<'h> {
        Asked {
            handle: xlb_exchange::default(),
            request: head.request(),
            view: View::new(head),
        }
    }

    /// What the programs are given.
    fn arguments(&mut self) -> (*mut xlb_exchange, *mut xlb_request) {
        let this = &raw mut *self;
        // SAFETY: fields of a live object; the handle's pointer is good for all of it.
        unsafe { (this.cast(), &raw mut (*this).request) }
    }
}

impl Policy {
    /// As the module's `call_route()`: again when the policy has asked for a table or for room, or the configuration has changed.
    pub fn route(&self, asked: &mut Asked<'_>) -> Decision {
        let mut decision = xlb_decision::default();
        let reason = self.call_route(asked, &mut decision);
        Decision { reason, decision }
    }

    fn call_route(&self, asked: &mut Asked<'_>, decision: &mut xlb_decision) -> u32 {
        for _ in 0..ROUNDS {
            asked.view.make_table();
            asked.view.forget_needles();
            let (ex, req) = asked.arguments();
            // SAFETY: both are valid for the call, and nothing else looks at them.
            let ret = self.run(|| unsafe { xlb_user_route(ex, req, decision) });
            match reason(ret) {
                XLB_REASON_RETRIED => {}
                reason => return reason,
            }
        }
        XLB_REASON_NO_ENDPOINT
    }

    /// Another endpoint, after [`Policy::route`].
    #[cfg(test)]
    pub fn pick(&self, asked: &mut Asked<'_>, decision: &mut xlb_decision, attempt: u32) -> u32 {
        asked.request.attempt = attempt;
        let (ex, req) = asked.arguments();
        // SAFETY: as in `call_route`.
        let ret = self.run(|| unsafe { xlb_user_pick(ex, req, decision) });
        match reason(ret) {
            XLB_REASON_RETRIED => self.call_route(asked, decision),
            reason => reason,
        }
    }

    /// Once for each endpoint that was given.
    #[cfg(test)]
    pub fn done(&self, asked: &mut Asked<'_>, decision: &xlb_decision, result: &xlb_result) {
        let (mut decision, mut result) = (*decision, *result);
        let (ex, req) = asked.arguments();
        // SAFETY: all three are valid for the call.
        self.run(|| unsafe { xlb_user_done(ex, req, &raw mut decision, &raw mut result) });
    }

    /// The index of the virtual host.
    pub fn vhost(&self, asked: &mut Asked<'_>) -> Option<u32> {
        let (ex, req) = asked.arguments();
        // SAFETY: as in `call_route`.
        let vhost = self.run(|| unsafe { xlb_user_vhost(ex, req) });
        (vhost != XLB_NONE).then_some(vhost)
    }

    /// Whether a condition holds, by its place in the table; after [`Policy::route`].
    pub fn condition(&self, asked: &mut Asked<'_>, index: u32) -> bool {
        let (ex, req) = asked.arguments();
        // SAFETY: as in `call_route`.
        self.run(|| unsafe { xlb_user_condition(ex, req, index) }) != 0
    }
}

/// As the module reads what the policy returns.
fn reason(ret: c_int) -> u32 {
    match u32::try_from(ret) {
        Ok(reason) if reason < XLB_REASON_COUNT => reason,
        _ => XLB_REASON_NO_ROUTE,
    }
}
