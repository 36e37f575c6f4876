// SPDX-License-Identifier: GPL-2.0
//! Questions and orders to the module, through the BPF control program.

use std::mem::{offset_of, MaybeUninit};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{libbpf_sys, ProgramHandle};
use nix::errno::Errno;

use super::programs;
use crate::error::{Context, Error};
use crate::intf::{
    self, xlb_count, xlb_ctl, xlb_ctl_call, xlb_info, xlb_pool_info, xlb_socket_info, Pod,
};

mod skel {
    include!(concat!(env!("OUT_DIR"), "/ctl.skel.rs"));
}

/// Under /sys/fs/bpf/xlb.
const PIN: &str = "control";

// linux/errno.h
const EPROTO: i32 = 71;

/// A number that the module counts, of whatever version it is.
pub struct Count {
    pub name: String,
    /// `XLB_COUNT_*`
    pub kind: u32,
    pub value: u64,
}

/// All of them.
pub struct Counts(Vec<Count>);

impl Counts {
    pub fn of(&self, kind: u32) -> impl Iterator<Item = &Count> {
        self.0.iter().filter(move |count| count.kind == kind)
    }

    /// Counters and gauges.
    pub fn counters(&self) -> impl Iterator<Item = &Count> {
        self.0
            .iter()
            .filter(|count| matches!(count.kind, intf::XLB_COUNT_COUNTER | intf::XLB_COUNT_GAUGE))
    }

    /// That with a name; 0 when the module has none.
    pub fn get(&self, name: &str) -> u64 {
        self.counters()
            .find(|count| count.name == name)
            .map_or(0, |count| count.value)
    }
}

/// The control program.
pub struct Ctl {
    program: ProgramHandle,
}

impl Ctl {
    /// That which is pinned beside the policy, if it is of this build: to load one, libbpf takes the kernel's BTF apart, which
    /// costs more than most of what xlbctl does.
    pub fn open() -> Result<Ctl, Error> {
        let is_of_this = programs::loaded().is_ok_and(|loaded| loaded.build == programs::BUILD);
        match ProgramHandle::from_pinned_path(programs::pin(PIN)) {
            Ok(program) if is_of_this => Ok(Ctl { program }),
            _ => Ctl::load(),
        }
    }

    pub fn load() -> Result<Ctl, Error> {
        super::quiet_libbpf();
        let mut storage = MaybeUninit::uninit();
        let skel = skel::CtlSkelBuilder::default()
            .open(&mut storage)
            .and_then(OpenSkel::load)
            .map_err(|err| super::load_error("the control program", &err))?;
        let program =
            ProgramHandle::try_from(&skel.progs.control).context("the control program")?;
        Ok(Ctl { program })
    }

    /// For every xlbctl of this build, as long as the policy is loaded.
    pub(super) fn pin(&self) -> Result<(), Error> {
        let pinned = self.program.pin(programs::pin(PIN));
        pinned.context("cannot pin the control program")
    }

    pub(super) fn unpin() -> Result<(), Error> {
        programs::unpin(PIN)
    }

    /// Runs one operation; returns what it wrote.
    fn call(&self, ctl: &mut xlb_ctl) -> Result<Vec<u8>, Error> {
        ctl.abi = intf::XLB_ABI;
        let mut context = vec![0u8; size_of::<xlb_ctl_call>()];
        let head = ctl.bytes();
        if let Some(room) = context.get_mut(..head.len()) {
            room.copy_from_slice(head);
        }
        // A program of this type has its context written back into ctx_in.
        let mut options = libbpf_sys::bpf_test_run_opts {
            sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
            ctx_in: context.as_mut_ptr().cast(),
            ctx_size_in: u32::try_from(context.len()).unwrap_or(u32::MAX),
            ..Default::default()
        };
        let program = self.program.as_fd().as_raw_fd();
        // SAFETY: the descriptor is open, and the context as long as it says, for the call; nothing else looks at it.
        let status = unsafe { libbpf_sys::bpf_prog_test_run_opts(program, &raw mut options) };
        if status < 0 {
            let why = Errno::from_raw(-status);
            return Err(Error::system(format!("cannot ask the module: {why}")));
        }
        // The program returns 0 or -errno.
        let status = i32::from_ne_bytes(options.retval.to_ne_bytes());
        *ctl = xlb_ctl::from_bytes(&context).unwrap_or(*ctl);
        if status == -EPROTO {
            return Err(Error::system(other_abi(ctl.abi)));
        }
        if status != 0 {
            return Err(Error::system(format!(
                "the module refused operation {}: {}",
                ctl.op,
                Errno::from_raw(-status)
            )));
        }
        Ok(context.split_off(offset_of!(xlb_ctl_call, buf)))
    }

    pub fn info(&self) -> Result<xlb_info, Error> {
        let mut ctl = xlb_ctl {
            op: intf::XLB_CTL_INFO,
            ..xlb_ctl::default()
        };
        let bytes = self.call(&mut ctl)?;
        let length = bytes.len().min(ctl.record_bytes as usize);
        Ok(xlb_info::from_record(&bytes[..length]))
    }

    /// What the module has counted.
    pub fn counts(&self) -> Result<Counts, Error> {
        let counts = self.list::<xlb_count>(intf::XLB_CTL_COUNTS)?;
        let counts = counts.iter().map(|count| Count {
            name: intf::text(&count.name),
            kind: count.kind,
            value: count.value,
        });
        Ok(Counts(counts.collect()))
    }

    pub fn sockets(&self) -> Result<Vec<xlb_socket_info>, Error> {
        self.list(intf::XLB_CTL_SOCKETS)
    }

    pub fn pools(&self) -> Result<Vec<xlb_pool_info>, Error> {
        self.list(intf::XLB_CTL_POOLS)
    }

    fn list<T: Pod>(&self, op: u32) -> Result<Vec<T>, Error> {
        let mut ctl = xlb_ctl {
            op,
            ..xlb_ctl::default()
        };
        let mut records = Vec::new();
        loop {
            let bytes = self.call(&mut ctl)?;
            records.extend(
                bytes
                    .chunks_exact((ctl.record_bytes as usize).max(1))
                    .take(ctl.count as usize)
                    .map(T::from_record),
            );
            if ctl.more == 0 {
                return Ok(records);
            }
        }
    }

    /// Closes idle connections to an endpoint in every pool, and lets running requests end.
    pub fn close_idle(&self, endpoint: SocketAddr) -> Result<(), Error> {
        let mut ctl = xlb_ctl {
            op: intf::XLB_CTL_CLOSE_IDLE,
            addr: intf::mapped(endpoint.ip()),
            port: endpoint.port(),
            ..xlb_ctl::default()
        };
        self.call(&mut ctl).map(|_| ())
    }

    /// An orderly end for the client sockets of a service slot, or of all (`None`).
    pub fn end_sockets(&self, slot: Option<u32>) -> Result<(), Error> {
        let mut ctl = xlb_ctl {
            op: intf::XLB_CTL_END_SOCKETS,
            service: slot.unwrap_or(intf::XLB_ANY),
            ..xlb_ctl::default()
        };
        self.call(&mut ctl).map(|_| ())
    }

    /// Lets go of the client sockets that have ended while their programs keep them; of how many.
    pub fn release(&self) -> Result<u32, Error> {
        let mut ctl = xlb_ctl {
            op: intf::XLB_CTL_RELEASE,
            ..xlb_ctl::default()
        };
        let mut sum = 0;
        loop {
            self.call(&mut ctl)?;
            sum += ctl.count;
            if ctl.more == 0 {
                return Ok(sum);
            }
        }
    }
}

/// What to say, and to do, about a module that does not take this xlbctl.
fn other_abi(module: u32) -> String {
    let mine = intf::XLB_ABI;
    if module < mine {
        format!(
            "the loaded kernel module is older than this xlbctl (ABI {module}, xlbctl has {mine}): \
             unload it with the xlbctl that it came with, and load the module of this one; nothing was changed"
        )
    } else {
        format!(
            "this xlbctl is older than the loaded kernel module (ABI {mine}, the module has {module}): \
             use the xlbctl that came with the module; nothing was changed"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_older_is_said_and_what_to_do() {
        let older = other_abi(intf::XLB_ABI - 1);
        assert!(
            older.contains("module is older") && older.contains("load the module"),
            "{older}"
        );
        let newer = other_abi(intf::XLB_ABI + 1);
        assert!(
            newer.contains("xlbctl is older") && newer.contains("use the xlbctl"),
            "{newer}"
        );
    }
}
