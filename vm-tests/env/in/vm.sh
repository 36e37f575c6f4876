# SPDX-License-Identifier: GPL-2.0
# Boots $XLB_KERNEL in QEMU and runs $SCRIPT of /xlb/case in it, the words
# of COMMAND, or a shell when both are empty.  Runs as root in the build root; QEMU and the daemon that serves the root file
# system run as the build user, the one that serves /case as root, as the script would
# write there itself.
#
# Channels:   serial console  kernel log, whole, to console.log
#             port xlb.out    the script's output, to our stdout
#             port xlb.ctl    "exit N", to a file
# Exit:       the script's status; 97 when the kernel log has a finding, 98 when the
#             machine ended without saying how, 124 after TIMEOUT seconds.
set -euo pipefail
env=/xlb/env
say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
as_xlb() { setpriv --reuid="$XLB_UID" --regid="$XLB_UID" --clear-groups --no-new-privs --inh-caps=-all "$@"; }

MEM=${MEM:-2G}
begin=$(date +%s.%N)
install -d -o "$XLB_UID" -g "$XLB_UID" /xlb/work/run
# Logs of the last machines are kept, of older ones not.
find /xlb/work/run -mindepth 1 -maxdepth 1 -mmin +600 -exec rm -rf {} +
run=$(mktemp -d /xlb/work/run/XXXXXX)
chmod 755 "$run"
# The logs stay.
trap 'rm -rf "$run"/bin "$run"/guest "$run"/vm-tests "$run"/initrd "$run"/xlb.ko "$run"/stdin' EXIT
release=$(cat "$XLB_KERNEL/version")

# What the machine sees under /xlb: this run's copies, so that a build meanwhile changes
# nothing under its feet.
mkdir "$run/bin"
for f in /xlb/work/bin/*; do [ ! -e "$f" ] || cp "$f" "$run/bin/"; done
ko=/xlb/work/$XLB_KMOD/xlb.ko
module=$NOMODULE
if [ -z "$module" ]; then
	if [ -e "$ko" ]; then cp "$ko" "$run/xlb.ko"; else module=1; say "==> no module is built for $release: booting without"; fi
fi
cp -r "$env/guest" "$run/guest"
cp -r /xlb/repo/vm-tests "$run/vm-tests"
mount -t tmpfs -o mode=755 xlb /xlb/rootfs/xlb
mkdir -p /xlb/rootfs/xlb/run /xlb/rootfs/xlb/kernel /xlb/rootfs/xlb/pypi/programs /xlb/rootfs/xlb/home
mount --bind "$run" /xlb/rootfs/xlb/run
mount --bind "$XLB_KERNEL/pkg" /xlb/rootfs/xlb/kernel
mount --bind /xlb/pypi/programs /xlb/rootfs/xlb/pypi/programs
ln -s run/bin /xlb/rootfs/xlb/bin
ln -s run/xlb.ko /xlb/rootfs/xlb/xlb.ko
ln -s run/vm-tests /xlb/rootfs/xlb/vm-tests

{
	printf 'SCRIPT=%q\nCOMMAND=%q\nARGS=%q\nNOMODULE=%q\nDEBUG=%q\nICOUNT=%q\n' "$SCRIPT" "$COMMAND" "$ARGS" "$module" "$DEBUG" "$ICOUNT"
	printf 'export QUICK=%q XLB_ALL=%q XLB_SEED=%q XLB_CLIENTS=%q\n' "$QUICK" "$XLB_ALL" "$XLB_SEED" "$XLB_CLIENTS"
	size=$(stty size 2>/dev/null || true)
	printf 'ROWS=%q\nCOLUMNS=%q\nSHELL_TERM=%q\n' "${size% *}" "${size#* }" "${TERM:-dumb}"
} >"$run/settings"

# The first file system: busybox, overlayfs where it is a module, and the first script.
ird=$(mktemp -d)
mkdir "$ird"/{bin,dev,proc,sys,ro,rw,new}
cp /usr/bin/busybox "$ird/bin/"
install -m 755 "$env/guest/init" "$ird/init"
overlay=$(find "$XLB_KERNEL/pkg" -name 'overlay.ko*' | head -n 1)
case $overlay in
*.xz) xz -dc "$overlay" >"$ird/overlay.ko" ;;
?*) cp "$overlay" "$ird/overlay.ko" ;;
esac
(cd "$ird" && find . | cpio -o -H newc --quiet) >"$run/initrd"
rm -rf "$ird"

serve() { # TAG FOLDER USER-PREFIX OPTION...
	local tag=$1 folder=$2 who=$3
	shift 3
	$who /usr/libexec/virtiofsd --socket-path="$run/$tag.sock" --shared-dir="$folder" --sandbox=none \
		--no-announce-submounts "$@" >"$run/virtiofsd-$tag.log" 2>&1 </dev/null &
	for _ in $(seq 100); do
		[ -S "$run/$tag.sock" ] && break
		sleep 0.02
	done
	[ -S "$run/$tag.sock" ] || die "virtiofsd does not start: $(cat "$run/virtiofsd-$tag.log")"
	chown "$XLB_UID" "$run/$tag.sock"
	devices+=(-chardev "socket,id=fs-$tag,path=$run/$tag.sock"
		-device "vhost-user-fs-pci,chardev=fs-$tag,tag=$tag,queue-size=512")
}
chown "$XLB_UID:$XLB_UID" "$run"
: >"$run/console.log"
: >"$run/ctl"
chown "$XLB_UID" "$run/console.log" "$run/ctl"
devices=()

machine() { # ACCEL-OPTIONS...
	as_xlb qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
		-machine q35,memory-backend=mem -object "memory-backend-memfd,id=mem,size=$MEM,share=on" -m "$MEM" \
		-kernel "$XLB_KERNEL/vmlinux" -initrd "$run/initrd" \
		-append "console=ttyS0 ignore_loglevel panic=-1 $APPEND $append" \
		-serial "file:$run/console.log" -device virtio-serial-pci \
		"$@"
}

# A /dev/kvm may be there and still not run this kernel: a boot to the first script
# decides, once for each machine, host kernel and guest kernel.
kvm_works() {
	[ -w /dev/kvm ] || [ -c /dev/kvm ] || return 1
	local memo rc=0
	memo=/xlb/kernels/kvm-$(cat /proc/sys/kernel/osrelease /etc/machine-id /proc/cpuinfo "$XLB_KERNEL/version" 2>/dev/null |
		grep -vE 'MHz|bogomips' | sha256sum | cut -c1-12)
	if [ ! -e "$memo" ]; then
		say "==> trying KVM with a short boot"
		append=xlb.trial
		timeout 30 bash -c "$(declare -f as_xlb machine); XLB_UID=$XLB_UID XLB_KERNEL=$XLB_KERNEL MEM=$MEM run=$run APPEND= append=xlb.trial; \
			machine -accel kvm -cpu host -smp 2" >"$run/kvm-trial.log" 2>&1 </dev/null || rc=$?
		if [ "$rc" = 0 ] && grep -q 'xlb-vm: trial' "$run/console.log"; then echo yes >"$memo.tmp"; else echo no >"$memo.tmp"; fi
		mv "$memo.tmp" "$memo"
		append=''
	fi
	[ "$(cat "$memo")" = yes ]
}

if [ -n "$ICOUNT" ]; then
	accel=(-accel tcg,thread=single,tb-size=512 -icount shift=0,sleep=off -cpu max -smp 1)
	how="emulated, counting instructions, 1 CPU"
elif [ "${XLB_ACCEL:-}" != tcg ] && kvm_works; then
	accel=(-accel kvm -cpu host -smp "$CPUS")
	how="KVM, $CPUS CPUs"
else
	accel=(-accel tcg,thread=multi,tb-size=512 -cpu max -smp "$CPUS")
	how="emulated, $CPUS CPUs"
fi
# virtiofsd writes into the machine's memory behind QEMU's back. An emulated CPU would go on running
# what it translated from an earlier use of a page (code that a JIT made, say) in place of the
# program that virtiofsd put there. A kernel that clears each page that it allocates makes QEMU
# forget those translations; Debian's does so without being told.
append=init_on_alloc=1

# Read-only, and as the build user, but with the right to read what is root's in there.
as_reader() {
	setpriv --reuid="$XLB_UID" --regid="$XLB_UID" --clear-groups --no-new-privs \
		--inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search "$@"
}
serve root /xlb/rootfs as_reader --readonly --cache=always
devices+=(-chardev "file,id=ctl,path=$run/ctl" -device virtserialport,chardev=ctl,name=xlb.ctl)
if [ -n "$SCRIPT$COMMAND" ]; then
	[ -z "$SCRIPT" ] || serve case /xlb/case '' --cache=auto
	devices+=(-chardev stdio,id=out,signal=off -device virtserialport,chardev=out,name=xlb.out)
	limit=(timeout --foreground "$TIMEOUT")
	# A standard input that never ends: at its end QEMU would take the port for closed.
	mkfifo "$run/stdin"
	exec 0<>"$run/stdin"
else
	devices+=(-chardev stdio,id=out,signal=off -device virtconsole,chardev=out)
	limit=()
fi
say "==> machine: $release, $how, $MEM; log: work/run/${run##*/}/console.log in the cache"

rc=0
launched=$(date +%s.%N)
as_xlb_qemu() { machine "${accel[@]}" "${devices[@]}"; }
saved=$(stty -g 2>/dev/null || true)
if [ ${#limit[@]} -gt 0 ]; then
	export -f machine as_xlb
	as_xlb_qemu <&0 & # without "<&0" the shell gives a background job /dev/null
	vm_pid=$!
	( sleep "$TIMEOUT" && echo timeout >"$run/timeout" && kill "$vm_pid" && sleep 3 && kill -9 "$vm_pid" ) >/dev/null 2>&1 &
	timer=$!
	wait "$vm_pid" || rc=$?
	kill "$timer" 2>/dev/null || true
else
	stty raw -echo 2>/dev/null || true
	as_xlb_qemu || rc=$?
	[ -z "$saved" ] || stty "$saved"
fi

log=$run/console.log
status=$(sed -n 's/^exit \([0-9]\{1,3\}\)$/\1/p' "$run/ctl" | tail -n 1)
started=$(sed -n 's/^script \([0-9.]*\)$/\1/p' "$run/ctl" | tail -n 1)
[ -z "$started" ] || [ -n "$ICOUNT" ] ||
	say "==> machine: script began after $(awk -v up="$started" -v b="$begin" -v q="$launched" 'BEGIN { printf "%.1f", q - b + up }') s"
if [ -e "$run/timeout" ]; then
	say "error: stopped after TIMEOUT=$TIMEOUT s; the last of the kernel log:"
	tail -n 30 "$log" >&2
	status=124
elif [ -z "$status" ]; then
	say "error: the machine ended early (QEMU status $rc); the last of the kernel log:"
	tail -n 60 "$log" >&2
	status=98
fi
findings=$(bash "$env/in/check-log.sh" "$log") || {
	say "error: the kernel log has findings ($(echo "$findings" | wc -l) lines):"
	printf '%s\n' "$findings" >&2
	[ "$status" != 0 ] || status=97
}
exit "$status"
