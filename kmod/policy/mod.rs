// SPDX-License-Identifier: GPL-2.0

//! What the policy says of a request: which route, which endpoint; and what it is told afterwards.
//!
//! The policy is BPF and is called under RCU by `shim/policy.c`. While it decides, it may ask about the request: the
//! kfuncs (`kfuncs.rs`) answer from a [`View`] of it, which is set before the first call and emptied after the last one.
//! All that a decision is about is in one [`Question`], whatever protocol the request came by, and whoever's it is.

use core::cell::UnsafeCell;
use core::mem::offset_of;

use xlb_engine::{Framing, Protocol, RequestHead};

use crate::sys;

mod actions;
mod kfuncs;
mod view;

pub(crate) use actions::{Actions, Reply};
use view::View;

/// How often a decision is begun at most.
const ROUNDS: u32 = 8;

/// Before anything was decided.
pub(crate) const NO_DECISION: sys::xlb_decision = sys::xlb_decision {
    size: size_of::<sys::xlb_decision>() as u32,
    route: 0,
    cluster: 0,
    endpoint: 0,
    cookie: [0; 2],
    addr: [0; 16],
    port: 0,
    flags: 0,
    draw: 0,
    pool: sys::xlb_pool_limits {
        min_idle: 0,
        max: 0,
        max_pending: 0,
        idle_timeout_ms: 0,
        connect_timeout_ms: 0,
        max_requests: 0,
        pending_timeout_ms: 0,
        cluster: 0,
    },
    hash: 0,
    affinity: 0,
};

/// A framed request.
pub(crate) struct Request<'a> {
    /// The bytes that `head` has its spans in.
    pub(crate) bytes: &'a [u8],
    pub(crate) head: &'a RequestHead,
    /// As they are matched: normalised, without query; in lower case, without port.
    pub(crate) path: &'a [u8],
    pub(crate) host: &'a [u8],
}

/// Who asks, and when.
pub(crate) struct Origin {
    pub(crate) cgroup_id: u64,
    /// As the policy has given it to `bpf_xlb_accept()`.
    pub(crate) service: u32,
    /// `CLOCK_MONOTONIC`
    pub(crate) now_ns: u64,
    /// Of its network namespace and address.
    pub(crate) source: u64,
}

/// A request as the policy sees it, from its first decision to its end.
///
/// # Invariants
///
/// It belongs to whoever has the exchange; while the policy is called nothing in it is written but cells.
pub(crate) struct Question {
    /// What the policy hands on to the kfuncs, which come back from here.
    handle: UnsafeCell<sys::xlb_exchange>,
    req: UnsafeCell<sys::xlb_request>,
    view: UnsafeCell<View>,
    /// What it was told to do, by the call of the policy that was the last.
    actions: UnsafeCell<Option<Actions>>,
}

// SAFETY: By the type invariant.
unsafe impl Sync for Question {}

impl Question {
    pub(crate) fn new() -> Self {
        Self {
            handle: UnsafeCell::new(sys::xlb_exchange::default()),
            req: UnsafeCell::new(sys::xlb_request::default()),
            view: UnsafeCell::new(View::empty()),
            actions: UnsafeCell::new(None),
        }
    }

    /// # Safety
    ///
    /// `handle` is the pointer that the policy was called with, during that call.
    unsafe fn of<'a>(handle: *const sys::xlb_exchange) -> &'a Self {
        // SAFETY: By the contract it is the field of a live Question.
        unsafe { &*handle.byte_sub(offset_of!(Question, handle)).cast::<Self>() }
    }

    /// # Safety
    ///
    /// The policy is being called.
    unsafe fn view(&self) -> &View {
        // SAFETY: By the type invariant.
        unsafe { &*self.view.get() }
    }

    /// # Safety
    ///
    /// The policy is being called, on behalf of the caller.
    unsafe fn act(&self, actions: Actions) {
        // SAFETY: During a call only the kfuncs of that call look at it, one after the other.
        unsafe { *self.actions.get() = Some(actions) };
    }

    /// What is to be done with the request, after a decision and until the next one.
    ///
    /// # Safety
    ///
    /// As of [`Question::route`], for as long as they are looked at.
    pub(crate) unsafe fn actions(&self) -> Option<&Actions> {
        // SAFETY: By the contract.
        unsafe { (*self.actions.get()).as_ref() }
    }

    /// Forgets it.
    ///
    /// # Safety
    ///
    /// As of [`Question::route`].
    pub(crate) unsafe fn forget_actions(&self) {
        // SAFETY: By the contract.
        unsafe {
            if (*self.actions.get()).is_some() {
                *self.actions.get() = None;
            }
        }
    }

    /// Asks where the request is to go. The error is the `XLB_REASON_*` that it is to be answered with.
    ///
    /// # Safety
    ///
    /// The caller has the exchange, and the policy is not being called.
    pub(crate) unsafe fn route(
        &self,
        origin: &Origin,
        request: &Request<'_>,
        decision: &mut sys::xlb_decision,
    ) -> Result<(), u32> {
        let head = request.head;
        let mut flags = 0;
        if head.framing != Framing::None {
            flags |= sys::XLB_REQ_HAS_BODY;
        }
        let new = sys::xlb_request {
            size: size_of::<sys::xlb_request>() as u32,
            service: origin.service,
            cgroup_id: origin.cgroup_id,
            now_ns: origin.now_ns,
            reserved0: 0,
            attempt: 0,
            method: head.method as u32,
            head_bytes: head.head_bytes - head.skip,
            host_bytes: request.host.len() as u32,
            path_bytes: request.path.len() as u32,
            path_segments: xlb_engine::path::segments(request.path),
            http_version: head.version.as_u16(),
            flags: flags as u16,
            upgrade: head.upgrade.map_or(0, Protocol::hash),
            source: origin.source,
        };
        *decision = NO_DECISION;
        // SAFETY: By the contract.
        unsafe {
            *self.req.get() = new;
            (*self.view.get()).show(request);
        }
        let ret = self.call_route(decision);
        self.decided(ret, sys::XLB_REASON_NO_ROUTE)
    }

    /// Asks for another endpoint, after [`Question::route`]; `attempt` counts from 1. The error as there.
    ///
    /// # Safety
    ///
    /// As there.
    pub(crate) unsafe fn pick(
        &self,
        attempt: u32,
        request: &Request<'_>,
        decision: &mut sys::xlb_decision,
    ) -> Result<(), u32> {
        // SAFETY: By the contract; all pointers are valid for the call.
        let mut ret = unsafe {
            (*self.view.get()).show(request);
            (*self.req.get()).attempt = attempt;
            sys::xlb_policy_pick(self.handle.get(), self.req.get(), decision)
        };
        if answer(ret, sys::XLB_REASON_NO_ENDPOINT) == sys::XLB_REASON_RETRIED {
            // The configuration that it was decided in is no more.
            ret = self.call_route(decision);
        }
        self.decided(ret, sys::XLB_REASON_NO_ENDPOINT)
    }

    /// Tells the policy how the picked endpoint did: once for each that it gave.
    ///
    /// # Safety
    ///
    /// As of [`Question::route`].
    pub(crate) unsafe fn done(
        &self,
        decision: &mut sys::xlb_decision,
        mut result: sys::xlb_result,
    ) {
        // SAFETY: All three are valid for the call.
        unsafe {
            sys::xlb_policy_done(self.handle.get(), self.req.get(), decision, &raw mut result)
        };
    }

    /// Calls `route`, and again when the configuration changed while it decided, or when it has asked for a table of the
    /// request's named parts first.
    fn call_route(&self, decision: &mut sys::xlb_decision) -> i32 {
        let mut ret = sys::XLB_REASON_RETRIED as i32;
        for _ in 0..ROUNDS {
            // SAFETY: The view is the caller's, and no call of the policy goes on.
            let view = unsafe { &mut *self.view.get() };
            if view.is_lacking() && view.make_table().is_err() {
                return sys::XLB_REASON_NO_MEMORY as i32;
            }
            view.forget_needles();
            // SAFETY: As of the view.
            unsafe { self.forget_actions() };
            // SAFETY: Both are valid for the call, and the view is set.
            ret = unsafe { sys::xlb_policy_route(self.handle.get(), self.req.get(), decision) };
            if ret != sys::XLB_REASON_RETRIED as i32 {
                break;
            }
        }
        ret
    }

    /// Ends the time in which BPF may ask; `otherwise` where it has said none of our reasons.
    fn decided(&self, ret: i32, otherwise: u32) -> Result<(), u32> {
        // SAFETY: The view is the caller's, and no call of the policy goes on.
        unsafe { &mut *self.view.get() }.hide();
        match answer(ret, otherwise) {
            sys::XLB_REASON_OK => Ok(()),
            // It changes faster than one can decide.
            sys::XLB_REASON_RETRIED => Err(sys::XLB_REASON_NO_ENDPOINT),
            reason => Err(reason),
        }
    }
}

/// What the policy answered: 0, one of our reasons, or `otherwise`.
fn answer(ret: i32, otherwise: u32) -> u32 {
    match u32::try_from(ret) {
        Ok(reason) if reason < sys::XLB_REASON_COUNT => reason,
        _ => otherwise,
    }
}
