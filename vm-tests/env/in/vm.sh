# SPDX-License-Identifier: GPL-2.0
# Boots $XLB_KERNEL with virtme-ng and runs $SCRIPT of /xlb/case in it, the words of
# COMMAND, or a shell when both are empty.  Runs as root in the build root, which is also
# the machine's; virtme-ng, QEMU and the daemon that serves the root run as the build user.
#
# What virtme-ng lacks is done here: the verdict on the kernel log, the trial of KVM, and a
# daemon that runs as root for /case, as the script would write there itself.  guest/boot
# sets up what the tests want beyond virtme-ng's own init.
#
# Channels:   serial console  kernel log, whole, to console.log (vm-shell has the serial console,
#                             the log comes from when the virtio console is there)
#             virtme.stdout   the script's output, to our stdout
#             virtme.ret      its status, which virtme-run ends with
# Exit:       the script's status; 97 when the kernel log has a finding, 98 when the
#             machine ended without saying how, 124 after TIMEOUT seconds.
set -euo pipefail
env=/xlb/env
say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
# The build user, with the right to read what is root's in the build root.
as_reader() {
	setpriv --reuid="$XLB_UID" --regid="$XLB_UID" --clear-groups --no-new-privs \
		--inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search "$@"
}

MEM=${MEM:-2G}
begin=$(date +%s.%N)
install -d -o "$XLB_UID" -g "$XLB_UID" /xlb/work/run
# Logs of the last machines are kept, of older ones not.
find /xlb/work/run -mindepth 1 -maxdepth 1 -mmin +600 -exec rm -rf {} +
run=$(mktemp -d /xlb/work/run/XXXXXX)
chmod 755 "$run"
# The logs stay.
trap 'rm -rf "$run"/bin "$run"/guest "$run"/vm-tests "$run"/xlb.ko "$run"/out "$run"/launched' EXIT
release=$(cat "$XLB_KERNEL/version")

# What the machine sees under /xlb: this run's copies, so that a build meanwhile changes
# nothing under its feet, and no settings of the host's package managers.
mkdir "$run/bin"
for f in /xlb/work/bin/*; do [ ! -e "$f" ] || cp "$f" "$run/bin/"; done
ko=/xlb/work/$XLB_KMOD/xlb.ko
module=$NOMODULE
if [ -z "$module" ]; then
	if [ -e "$ko" ]; then cp "$ko" "$run/xlb.ko"; else module=1; say "==> no module is built for $release: booting without"; fi
fi
cp -r "$env/guest" "$run/guest"
cp -r /xlb/repo/vm-tests "$run/vm-tests"
# Under emulation these cost half a second each: virtme-ng looks for a version in the whole of a
# vmlinux, and its init has directories made that nothing here wants.
for slow in strings systemd-tmpfiles; do mount --bind /bin/true "/usr/bin/$slow"; done
mount --bind "$XLB_KERNEL/pkg/usr/lib/modules" /usr/lib/modules
mount -t tmpfs -o mode=755 home /xlb/home
mount -t tmpfs -o mode=700 cargo /xlb/.cargo
ln -sfn "$run" /xlb/run
ln -s run/bin run/xlb.ko run/vm-tests /xlb/
{
	printf 'SCRIPT=%q\nCOMMAND=%q\nARGS=%q\nNOMODULE=%q\n' "$SCRIPT" "$COMMAND" "$ARGS" "$module"
	printf 'export QUICK=%q XLB_ALL=%q XLB_SEED=%q XLB_CLIENTS=%q XLB_STORM=%q\n' "$QUICK" "$XLB_ALL" "$XLB_SEED" "$XLB_CLIENTS" "$XLB_STORM"
} >"$run/settings"

chown -R "$XLB_UID:$XLB_UID" "$run"
devices=(-nodefaults -chardev "file,id=launched,path=$run/launched") # its time is that of QEMU's start
if [ -n "$SCRIPT" ]; then
	/usr/libexec/virtiofsd --socket-path="$run/case.sock" --shared-dir=/xlb/case --sandbox=none \
		--no-announce-submounts --cache=auto >"$run/virtiofsd-case.log" 2>&1 </dev/null &
	for _ in $(seq 100); do
		[ -S "$run/case.sock" ] && break
		sleep 0.02
	done
	[ -S "$run/case.sock" ] || die "virtiofsd does not start: $(cat "$run/virtiofsd-case.log")"
	chown "$XLB_UID" "$run/case.sock"
	devices+=(-chardev "socket,id=case,path=$run/case.sock" -device vhost-user-fs-pci,chardev=case,tag=case)
fi

# virtiofsd writes into the machine's memory behind QEMU's back. An emulated CPU would go on running
# what it translated from an earlier use of a page (code that a JIT made, say) in place of the
# program that virtiofsd put there. A kernel that clears each page that it allocates makes QEMU
# forget those translations; Debian's does so without being told.
kopts=()
for o in ignore_loglevel init_on_alloc=1 virtme_root_mods=1 $APPEND; do kopts+=(--kopt "$o"); done
overlays=()
for d in /etc /root /var; do overlays+=(--overlay-rwdir "$d"); done

own() { install -o "$XLB_UID" -g "$XLB_UID" -m 644 /dev/null "$1"; }

# machine OPTION-OF-VIRTME-RUN...: for at most `limit`, its standard streams files of the build
# user, as QEMU opens them anew.
machine() {
	as_reader "${limit[@]}" env HOME=/tmp PYTHONPATH=/xlb/pypi/programs /xlb/pypi/programs/bin/virtme-run \
		--kimg "$XLB_KERNEL/vmlinux" --mods none --name xlb --memory "$MEM" --disable-microvm --show-boot-console \
		"${kopts[@]}" "${overlays[@]}" "$@"
}

# A /dev/kvm may be there and still not run this kernel: a boot to a first script
# decides, once for each machine, host kernel and guest kernel.
kvm_works() {
	[ -w /dev/kvm ] || [ -c /dev/kvm ] || return 1
	local memo
	memo=/xlb/kernels/kvm-$(cat /proc/sys/kernel/osrelease /etc/machine-id /proc/cpuinfo "$XLB_KERNEL/version" 2>/dev/null |
		grep -vE 'MHz|bogomips' | sha256sum | cut -c1-12)
	if [ ! -e "$memo" ]; then
		say "==> trying KVM with a short boot"
		limit=(timeout 30)
		# Without udevd in the root the status of a script is in the log only.
		own "$run/kvm-trial.log"
		machine --cpus 2 --script-sh true </dev/null >/dev/null 2>"$run/kvm-trial.log" || true
		if grep -q 'script exited with code 0' "$run/kvm-trial.log"; then echo yes >"$memo.tmp"; else echo no >"$memo.tmp"; fi
		mv "$memo.tmp" "$memo"
	fi
	[ "$(cat "$memo")" = yes ]
}

if [ -n "$ICOUNT" ]; then
	accel=(-accel tcg,thread=single,tb-size=512 -icount shift=0,sleep=off) options=(--disable-kvm --cpus 1)
	how="emulated, counting instructions, 1 CPU"
elif [ "${XLB_ACCEL:-}" != tcg ] && kvm_works; then
	accel=() options=(--cpus "$CPUS")
	how="KVM, $CPUS CPUs"
else
	accel=(-accel tcg,thread=multi,tb-size=512) options=(--disable-kvm --cpus "$CPUS")
	how="emulated, $CPUS CPUs"
fi
say "==> machine: $release, $how, $MEM; log: work/run/${run##*/}/console.log in the cache"

log=$run/console.log
rc=0
own "$log"
if [ -n "$SCRIPT$COMMAND" ]; then
	mkfifo "$run/out"
	chown "$XLB_UID" "$run/out"
	cat "$run/out" &
	output=$!
	limit=(timeout -k 3 "$TIMEOUT")
	machine "${options[@]}" --script-exec /xlb/run/guest/boot --qemu-opts "${accel[@]}" "${devices[@]}" \
		</dev/null >"$run/out" 2>>"$log" || rc=$?
	wait "$output"
else
	limit=()
	machine "${options[@]}" --disable-monitor --user root --shell /xlb/run/guest/boot \
		--qemu-opts "${accel[@]}" "${devices[@]}" 2>>"$log" || rc=$?
fi

status=$rc
started=$(sed -n 's/.*xlb-vm: start \([0-9.]*\).*/\1/p' "$log" | tail -n 1)
[ -z "$started" ] || [ -n "$ICOUNT" ] ||
	say "==> machine: script began after $(awk -v up="$started" -v b="$begin" -v q="$(stat -c %.9Y "$run/launched")" 'BEGIN { printf "%.1f", q - b + up }') s"
if ! grep -q 'xlb-vm: end' "$log"; then
	[ "$rc" = 124 ] || status=98
	say "error: $([ "$rc" = 124 ] && echo "stopped after TIMEOUT=$TIMEOUT s" || echo "the machine ended early"); the last of the kernel log:"
	tail -n 60 "$log" >&2
fi
findings=$(bash "$env/in/check-log.sh" "$log") || {
	say "error: the kernel log has findings ($(echo "$findings" | wc -l) lines):"
	printf '%s\n' "$findings" >&2
	[ "$status" != 0 ] || status=97
}
exit "$status"
