# SPDX-License-Identifier: GPL-2.0
# check-log.sh LOG: prints the findings in a kernel log, each with the lines after it, and
# fails when there are any.
#
# The kernel's own boot may warn of the emulated hardware: before the line "xlb-vm: begin"
# only what ends the machine counts.  After it, everything does that the kernel prints
# when an assumption of its own is broken.  Of the races that KCSAN reports those count that
# XLB has a part in, as in vm-tests/src/races.rs.  Where allocations are made to fail, reports
# that they did are none, as in vm-tests/src/kmsg.rs.
set -eu
exec awk '
function finding(l) {
	return l ~ /(^|[^A-Za-z_])BUG[: ]|WARNING:|------------\[ cut here|Oops|[Gg]eneral protection fault|divide error/ ||
		l ~ /KASAN|KFENCE|KMSAN|UBSAN|ODEBUG:|refcount_t:|list_(add|del) corruption|[Uu]nable to handle/ ||
		l ~ /possible (circular|recursive|irq lock|deadlock)|inconsistent lock state|suspicious RCU usage/ ||
		l ~ /bad unlock balance|held lock freed|lock held (at|when)|DEBUG_LOCKS_WARN_ON|Invalid wait context/ ||
		l ~ /MAX_LOCK(DEP|_DEPTH)|MAX_STACK_TRACE|turning off the locking correctness validator|nested lock was not taken/ ||
		l ~ /scheduling while atomic|sleeping function called|INFO: task .* blocked|blocked for more than/ ||
		l ~ /rcu.*(detected stalls|self-detected stall|expedited stalls|starved)|soft lockup|hard LOCKUP|workqueue lockup/ ||
		l ~ /kmemleak: [0-9]+ new suspected|unreferenced object|Objects remaining|Slab cache still has objects/ ||
		l ~ /Attempt to release|Bad page|bad page state|page allocation failure|Out of memory: Killed|leaked reference|ref_tracker/ ||
		l ~ /unregister_netdevice: waiting|stack-protector|kernel stack overflow|Call Trace:|Fixing recursive fault/ ||
		l ~ /trying to register non-static key|lockdep is turned off|kmemleak: (Kernel memory leak detector disabled|Memory pool|Cannot)/ ||
		l ~ /traps: [^ ]+ (general|trap)|segfault at|rust_kernel: panicked|panicked at|btf_vmlinux is malformed|failed to validate module|Unknown symbol|disagrees about version/
}
function text(l) { sub(/\r$/, "", l); sub(/^\[[^]]*\] ?(\[[^]]*\] ?)?/, "", l); return l }
/xlb-vm: begin/ { begun = 1 }
/BUG: KCSAN: / { race = begun; report = ""; of_xlb = interrupted = 0 }
race {
	report = report $0 "\n"
	frame = text($0)
	if (frame !~ /^ /) interrupted = 0
	else if (frame ~ /^ +(handle_softirqs|__do_softirq|asm_sysvec_|asm_common_interrupt|asm_exc_)/) interrupted = 1
	else if (!interrupted && frame ~ /xlb/) of_xlb = 1
	if (frame ~ /^Reported by Kernel Concurrency Sanitizer/) {
		if (of_xlb) { printf "%s", report; found = 1 }
		race = 0
	}
	if (frame ~ /^( |BUG: KCSAN)/) next
}
/BUG: KCSAN: / { next }
/Kernel panic|xlb-vm: failed/ { print; after = 40; found = 1; next }
/xlb-vm: allocations may/ { may_fail = !/may not/; failed = 0 }
/xlb-vm: / { next }
may_fail && /vmalloc error: size|page allocation failure: order/ { failed = 1; next }
failed {
	frame = text($0)
	if (frame == " </TASK>") failed = 0
	if (frame ~ /^( |Call Trace:$|RIP: 0033:)/) next
}
begun && finding($0) { print; after = 40; found = 1; next }
after > 0 { print "  " $0; after-- }
END { exit found }
' "$1"
