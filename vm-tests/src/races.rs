// SPDX-License-Identifier: GPL-2.0
//! What KCSAN reports: a race of XLB, or one of the kernel's own.
//!
//! A report has the stacks of one or both accesses. XLB is in it when one of its functions, or one of its programs,
//! is in a stack above the interrupt that the access was made in, if any: over loopback an endpoint's half of TCP
//! runs in a softirq on top of whatever the client's task was doing, which is nearly always XLB.

/// The head of a report, up to the two functions.
const HEAD: &str = "BUG: KCSAN: ";
const LAST: &str = "====";

/// Frames below which a stack is that of whoever was interrupted.
const INTERRUPTS: &[&str] = &[
    "handle_softirqs",
    "__do_softirq",
    "asm_sysvec_",
    "asm_common_interrupt",
    "asm_exc_",
];

/// One report.
#[derive(Debug, PartialEq)]
pub struct Race {
    /// `data-race in tcp_poll / tcp_rcv_established`
    pub title: String,
    pub lines: Vec<String>,
}

impl Race {
    /// Whether XLB made one of the accesses, or called what did.
    pub fn is_of_xlb(&self) -> bool {
        let mut interrupted = false;
        for line in &self.lines {
            if !is_frame(line) {
                interrupted = false;
            } else if INTERRUPTS
                .iter()
                .any(|name| line.trim_start().starts_with(name))
            {
                interrupted = true;
            } else if !interrupted && line.contains("xlb") {
                return true;
            }
        }
        false
    }
}

fn is_frame(line: &str) -> bool {
    line.starts_with(' ')
}

/// Names the task that reports, which may be one of XLB's whatever the race is.
fn is_reporter(line: &str) -> bool {
    line.starts_with("CPU: ")
}

/// Takes the reports out of a log. Lines between theirs that are not part of them, of another CPU, stay.
pub fn take_from(lines: Vec<(u32, String)>) -> (Vec<Race>, Vec<(u32, String)>) {
    let (mut races, mut rest) = (Vec::<Race>::new(), Vec::new());
    let mut open = false;
    for (priority, line) in lines {
        if let Some((_, title)) = line.split_once(HEAD) {
            open = true;
            let title = title.to_owned();
            races.push(Race {
                title,
                lines: vec![line],
            });
        } else if let (true, Some(race)) = (open, races.last_mut()) {
            open = !line.starts_with(LAST);
            race.lines.push(line.clone());
            if !is_frame(&line) && !is_reporter(&line) {
                rest.push((priority, line));
            }
        } else {
            rest.push((priority, line));
        }
    }
    (races, rest)
}

#[cfg(test)]
mod tests {
    use super::take_from;

    fn split(log: &str) -> (Vec<bool>, Vec<String>) {
        let lines = log.lines().map(|line| (3, line.to_owned())).collect();
        let (races, rest) = take_from(lines);
        (
            races.iter().map(super::Race::is_of_xlb).collect(),
            rest.into_iter().map(|(_, line)| line).collect(),
        )
    }

    const KERNEL: &str = "\
==================================================================
BUG: KCSAN: data-race in tcp_poll / tcp_rcv_established

write to 0xffff888012345678 of 4 bytes by interrupt on cpu 0:
 tcp_rcv_established+0x100/0x200
 handle_softirqs+0x10/0x20
 __local_bh_enable_ip+0x10/0x20
 tcp_sendmsg_locked+0x10/0x20
 _RNvMs_Cs1_8xlb_main4send3all+0x10/0x20 [xlb]

read to 0xffff888012345678 of 4 bytes by task 100 on cpu 1:
 tcp_poll+0x10/0x20
 asm_sysvec_apic_timer_interrupt+0x1a/0x20
 xlb_poll+0x10/0x20 [xlb]

value changed: 0x00000001 -> 0x00000002

Reported by Kernel Concurrency Sanitizer on:
CPU: 1 UID: 0 PID: 100 Comm: xlbctl Tainted: G           O
==================================================================";

    #[test]
    fn whoever_was_interrupted_has_no_part_in_it() {
        let (races, rest) = split(KERNEL);
        assert_eq!(races, [false]);
        assert!(rest
            .iter()
            .all(|line| !line.contains("BUG") && !line.contains("xlb")));
    }

    #[test]
    fn one_frame_of_xlb_is_enough() {
        let log = KERNEL.replace(
            " tcp_poll+",
            " tcp_poll+0x1/0x2\n xlb_data_ready+0x1/0x2 [xlb]\n tcp_poll+",
        );
        assert_eq!(split(&log).0, [true]);
        let log = KERNEL.replace(
            " tcp_rcv_established+",
            " _RNvMs_Cs1_8xlb_main5isock+0x1/0x2 [xlb]\n tcp_rcv_established+",
        );
        assert_eq!(split(&log).0, [true]);
    }

    #[test]
    fn other_lines_are_still_judged() {
        let log = KERNEL.replace(
            "value changed",
            "WARNING: CPU: 0 PID: 1 at net/core/stream.c:217\nvalue changed",
        );
        let (races, rest) = split(&log);
        assert_eq!(races.len(), 1);
        assert!(rest.iter().any(|line| line.starts_with("WARNING")));
        assert!(split("WARNING: one\nBUG: KASAN: two").0.is_empty());
    }
}
