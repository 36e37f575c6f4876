// SPDX-License-Identifier: GPL-2.0
//! Questions and orders to the module, through the BPF control program.

use std::mem::{offset_of, MaybeUninit};
use std::net::SocketAddr;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::ProgramInput;

use crate::error::{Context, Error};
use crate::intf::{
    self, xlb_count, xlb_ctl, xlb_ctl_call, xlb_info, xlb_pool_info, xlb_socket_info, Pod,
};

mod skel {
    include!(concat!(env!("OUT_DIR"), "/ctl.skel.rs"));
}

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

/// The loaded control program.  Each xlbctl loads it anew: nothing is pinned.
pub struct Ctl {
    skel: skel::CtlSkel<'static>,
}

impl Ctl {
    pub fn open() -> Result<Ctl, Error> {
        super::quiet_libbpf();
        // The skeleton borrows its object; xlbctl opens one and ends.
        let storage = Box::leak(Box::new(MaybeUninit::uninit()));
        let skel = skel::CtlSkelBuilder::default()
            .open(storage)
            .and_then(OpenSkel::load)
            .map_err(|err| super::load_error("the control program", &err))?;
        Ok(Ctl { skel })
    }

    /// Runs one operation; returns what it wrote.
    fn call(&self, ctl: &mut xlb_ctl) -> Result<Vec<u8>, Error> {
        ctl.abi = intf::XLB_ABI;
        let mut context = vec![0u8; size_of::<xlb_ctl_call>()];
        let head = ctl.bytes();
        if let Some(room) = context.get_mut(..head.len()) {
            room.copy_from_slice(head);
        }
        let input = ProgramInput {
            context_in: Some(&mut context),
            ..ProgramInput::default()
        };
        let output = self
            .skel
            .progs
            .control
            .test_run(input)
            .context("cannot ask the module")?;
        // The program returns 0 or -errno.
        let status = i32::from_ne_bytes(output.return_value.to_ne_bytes());
        *ctl = xlb_ctl::from_bytes(&context).unwrap_or(*ctl);
        if status == -EPROTO {
            return Err(Error::system(other_abi(ctl.abi)));
        }
        if status != 0 {
            return Err(Error::system(format!(
                "the module refused operation {}: {}",
                ctl.op,
                nix::errno::Errno::from_raw(-status)
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
