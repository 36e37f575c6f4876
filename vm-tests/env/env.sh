#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Everything that the Makefile's verbs need: the build root, the kernel, builds in the
# root and virtual machines.  Run as root; `env.sh help` lists the commands.
#
# What is made lives in XLB_CACHE, outside the checkout:
#
#   root-HASH/       the build root; also, read-only, the file system of the machines
#   kernel-HASH/V/   a stock kernel V: prepared tree (build/), packages (pkg/), vmlinux
#   debug-HASH/V/    the debug kernel of V's sources, in the same shape; kcsan-HASH/V/ the one with KCSAN
#   pypi-HASH/       programs of the Python index: Envoy and what else env/pypi lists
#   work/ID/         for each checkout: copies of the sources, build results, machines' logs
#   apt/ cargo/      package lists, crates
#   mnt/             empty; where each command mounts the root in a namespace of its own
#
# HASH is of the files that say how the thing is made.  Nothing stays mounted: every
# mount is in the private namespace of the command (enter.sh).  Inside, only apt-less
# glue runs as root; compilers and QEMU run as a user that the host does not have.
set -euo pipefail
umask 022

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
repo=$(cd "$here/../.." && pwd -P)
. "$here/lib.sh"
. "$here/root.sh"

cache=${XLB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xlb}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd -P)
case $cache/ in "$repo"/*) die "XLB_CACHE is inside the checkout: choose another folder" ;; esac

root=$cache/root-$(hash_of "$here/packages" "$here/peers" <(declare -f debootstrap_into))
kernels=$cache/kernel-$(hash_of "$here/packages" "$here/in/kernel.sh" "$here/in/kernel-lib.sh")
case ${1:-} in test-debug) DEBUG=1 ;; test-kcsan) DEBUG=kcsan ;; esac
# DEBUG=1 is the kernel of kconfig/debug.config, DEBUG=NAME of it and kconfig/NAME.config over it.
case ${DEBUG:-} in
'' | 1) flavour=debug fragments=(debug.config) ;;
*) flavour=$DEBUG fragments=(debug.config "$DEBUG.config") ;;
esac
[ -f "$repo/kconfig/$flavour.config" ] || die "DEBUG=$flavour: there is no kconfig/$flavour.config"
debugs=$cache/$flavour-$(hash_of "$here/packages" "$here/in/kernel-debug.sh" "$here/in/kernel-lib.sh" "${fragments[@]/#/$repo/kconfig/}")
pypi=$cache/pypi-$(hash_of "$here/pypi" "$here/in/pypi.sh")
work=$cache/work/$(printf %s "$repo" | sha256sum | cut -c1-8)

[ "$(id -u)" = 0 ] || die "this needs root: it mounts and changes root (compilers and QEMU are not run as root)"

# inside USER [VAR=VALUE...] COMMAND...: in the build root, as "root" or "xlb".
inside() {
	local user=$1
	shift
	XLB_ROOT=$root XLB_MNT=$cache/mnt XLB_REPO=$repo XLB_WORK=$work XLB_KERNELS=$kernels \
		XLB_DEBUGS=$debugs XLB_PYPI=$pypi XLB_APT=$cache/apt XLB_CARGO=$cache/cargo XLB_UID=$BUILD_UID XLB_USER=$user \
		unshare --mount --pid --fork --kill-child "$here/enter.sh" "$@"
}

owned_dirs() {
	mkdir -p "$cache/mnt"
	install -d -o "$BUILD_UID" -g "$BUILD_UID" "$@"
}

setup_root() {
	unshare --mount true 2>/dev/null || die "no right to mount: in a container this needs --privileged"
	if [ ! -d "$root" ]; then
		say "==> cache: $cache"
		[ "$(df -Pk "$cache" | awk 'NR == 2 { print $4 }')" -gt 6000000 ] ||
			die "less than 6 GB free in $cache; XLB_CACHE=... chooses another place"
		host_packages
		locked "$cache/lock" stage "$root" debootstrap_into
	fi
	# Where the machines mount what they see besides.
	mkdir -p "$root/case" "$root/usr/lib/modules"
	owned_dirs "$kernels" "$debugs" "$pypi" "$cache/apt" "$cache/cargo" "$cache/work" "$work"
}

script() { printf '/xlb/env/in/%s' "$1"; }

# Sets `version`: what KERNEL asks for, or the newest; remembered until asked for anew.
choose_kernel() {
	local want=${KERNEL:-} memo
	memo=$kernels/choice-${want:-newest}
	[ "$want" != newest ] || { want='' && rm -f "$memo"; }
	if [ ! -s "$memo" ]; then
		step "asking the archive for ${want:-the newest 7.x} stock kernel with Rust" - \
			inside xlb KERNEL="$want" RESULT="/xlb/kernels/${memo##*/}" bash "$(script kernel-select.sh)"
	fi
	version=$(cat "$memo")
	say "==> kernel ${version}${KERNEL:+ (KERNEL=$KERNEL)}"
}

make_kernel() { # VERSION DIR.tmp
	step "kernel $1: packages, sources, Rust metadata (2 GB)" "$2" \
		inside xlb VERSION="$1" OUT="/xlb/kernels/${2##*/}" bash "$(script kernel.sh)"
}

make_pypi() { # DIR.tmp
	step "programs of the Python index: $(sed -n 's/^\([a-z].*\)==.*/\1/p' "$here/pypi" | xargs)" "$1" \
		inside xlb OUT="/xlb/pypi/${1##*/}" bash "$(script pypi.sh)"
}

make_debug_kernel() { # VERSION DIR.tmp
	step "debug kernel of $1's sources with ${fragments[*]} of kconfig/ (half an hour and more on 2 CPUs)" "$2" \
		inside xlb VERSION="$1" FRAGMENTS="${fragments[*]}" OUT="/xlb/debugs/${2##*/}" bash "$(script kernel-debug.sh)"
}

setup() {
	setup_root
	choose_kernel
	[ -d "$kernels/$version" ] || locked "$cache/lock" stage "$kernels/$version" make_kernel "$version"
	[ -d "$pypi/programs" ] || locked "$cache/lock" stage "$pypi/programs" make_pypi
	kernel=/xlb/kernels/$version kernel_id=$version
	if [ -n "${DEBUG:-}" ]; then
		[ -d "$debugs/$version" ] ||
			locked "$cache/lock-$flavour" stage "$debugs/$version" make_debug_kernel "$version"
		kernel=/xlb/debugs/$version kernel_id=$version-$flavour
	fi
}

# build WHAT...: each in the copy of the sources that its tool works in, under the lock of
# that copy: Kbuild need not wait for cargo.
build_locked() { # COPY WHAT
	inside root COPY="$1" bash "$(script sync.sh)" &&
		inside xlb COPY="$1" XLB_KERNEL="$kernel" KERNEL_ID="$kernel_id" V="${V:-}" bash "$(script build.sh)" "$2"
}
build() {
	local what copy
	for what in "$@"; do
		case $what in kmod) copy=kmod ;; *) copy=cargo ;; esac
		locked "$work/lock-$copy" build_locked "$copy" "$what" || return
	done
}

build_missing() {
	[ -n "${NOMODULE:-}" ] || [ -e "$work/$(kdir)/xlb.ko" ] || build kmod
	[ -n "${NOMODULE:-}" ] || [ -e "$work/bin/xlbctl" ] || build xlbctl
}

copy_out() { # FILE-IN-WORK FILE-IN-CHECKOUT
	[ -e "$work/$1" ] || return 0
	cmp -s "$work/$1" "$repo/$2" && return 0
	mkdir -p "$(dirname "$repo/$2")"
	install -m "${3:-644}" "$work/$1" "$repo/$2.new"
	mv "$repo/$2.new" "$repo/$2"
}

kdir() { printf 'ko/%s' "$kernel_id"; }

vm() { # [SCRIPT]; or COMMAND, which runs in the machine without a folder of its own
	local case_dir='' name=''
	if [ -n "${1:-}" ]; then
		[ -f "$1" ] || die "no such script: $1"
		case_dir=$(cd "$(dirname "$1")" && pwd -P)
		name=$(basename "$1")
	fi
	XLB_CASE=$case_dir inside root XLB_KERNEL="$kernel" XLB_KMOD="$(kdir)" SCRIPT="$name" \
		COMMAND="${COMMAND:-}" ARGS="${ARGS:-}" CPUS="${CPUS:-2}" MEM="${MEM:-${DEBUG:+4G}}" ICOUNT="${ICOUNT:-}" DEBUG="${DEBUG:-}" \
		NOMODULE="${NOMODULE:-}" QUICK="${QUICK:-}" XLB_ALL="${XLB_ALL:-}" \
		XLB_SEED="${XLB_SEED:-}" XLB_CLIENTS="${XLB_CLIENTS:-}" XLB_STORM="${XLB_STORM:-}" TIMEOUT="${TIMEOUT:-900}" APPEND="${APPEND:-}" \
		bash "$(script vm.sh)"
}

vm_test() {
	local limit=2400
	[ -z "${XLB_ALL:-}" ] || limit=4800
	[ -z "${DEBUG:-}" ] || limit=14400
	[[ ${XLB_STORM:-0} =~ ^[0-9]+$ ]] || die "XLB_STORM is a number of seconds"
	limit=$((limit + ${XLB_STORM:-0}))
	TIMEOUT=${TIMEOUT:-$limit} COMMAND="vm-tests guest ${XLB_ALL:+--fresh} ${FILTER:-}" vm
}

# The debug kernel twice.  kmemleak makes allocations so slow that to load the policy takes a
# minute: so all scenarios run without it, and then those that make and free every kind of object
# run with it, the module and the policy loaded once; the scan comes after rmmod.
leak_scenarios=socket/disconnect_and_reconnect,socket/refused_options,io/pipelined,io/shutdown_write,io/close_with_unread_data
leak_scenarios+=,io/fork_and_dup,bodies/python_kinds,bodies/expect_continue,bodies/upgrade_tunnel,clients/curl_parallel
leak_scenarios+=,config/apply_get_delete,config/running_request_outlives_its_endpoint,life/client_killed,life/backend_killed
leak_scenarios+=,life/cgroup_removed_while_in_use,life/netns_removed_while_in_use,life/netns_gone_frees_its_pool
leak_scenarios+=,pool/max_and_pending,pool/idle_timeout,pool/dead_connection_is_replayed_once,replies/no_route
leak_scenarios+=,replies/malformed_requests,replies/malformed_responses,replies/connect_failed,hostile/backend_answers_twice
test_debug() {
	local rc=0
	setup
	APPEND="kmemleak=off ${APPEND:-}" vm_test || rc=$?
	[ -n "${FILTER:-}" ] || FILTER="--keep --only $leak_scenarios" vm_test || rc=$?
	return "$rc"
}

# On the kernel with KCSAN, what runs at the same time as something else.  In KCSAN's own delays (80 us in
# a task, 20 in an interrupt) an emulated CPU does next to nothing that could race with what is watched.
concurrent_scenarios=pool/,life/,balance/,socket/,io/,edge/,owner/,identity/,storm/,under_load,clients/many,config/old_or_new
test_kcsan() {
	setup
	FILTER=${FILTER:-$concurrent_scenarios} APPEND="log_buf_len=16M kcsan.udelay_task=2000 kcsan.udelay_interrupt=400 ${APPEND:-}" vm_test
}

# All that .ci/run wants: every part runs, whatever the earlier ones said.  Compilers and the
# machine work at the same time, as each leaves a CPU idle; what the compilers say comes last.
test_all() {
	local logs failed=() begin=$SECONDS lint unit
	logs=$(mktemp -d)
	setup
	build kmod xlbctl vm-tests
	say "==> lint and unit tests run beside the machine"
	build lint >"$logs/lint" 2>&1 &
	lint=$!
	build unit >"$logs/unit" 2>&1 &
	unit=$!
	vm_test | tee "$logs/vm" || failed+=(vm-test)
	wait "$lint" || failed+=(lint)
	cat "$logs/lint"
	wait "$unit" || failed+=(unit)
	cat "$logs/unit"
	for part in unit vm; do tail -n 20 "$logs/$part" | grep -E '[0-9]+ passed, [0-9]+ failed' | tail -n 1; done |
		awk -v t=$((SECONDS - begin)) -v bad="${failed[*]}" '
		match($0, /[0-9]+ passed, [0-9]+ failed/) { split(substr($0, RSTART, RLENGTH), n, " "); p += n[1]; f += n[3] }
		match($0, /[0-9]+ skipped/) { s += substr($0, RSTART) + 0 }
		END { printf "\n%d passed, %d failed%s in %d s%s\n", p, f, s ? ", " s " skipped" : "", t, bad == "" ? "" : "; not clean: " bad }'
	rm -rf "$logs"
	[ ${#failed[@]} -eq 0 ]
}

install_all() { # DESTDIR; after a build
	local modules=$1/usr/lib/modules/$version/updates
	install -D -m 644 "$work/$(kdir)/xlb.ko" "$modules/xlb.ko"
	install -D -m 755 "$work/bin/xlbctl" "$1/usr/sbin/xlbctl"
	say "==> installed $modules/xlb.ko and $1/usr/sbin/xlbctl"
	[ -n "$1" ] || depmod "$version" 2>/dev/null || true
}

usage() {
	cat <<-'END'
		env.sh COMMAND; the environment chooses: KERNEL, DEBUG=1 or kcsan, XLB_CACHE
		  setup                 make what is missing: build root, kernel
		  kernel                print the chosen kernel
		  build WHAT...         kmod, bpf, xlbctl, vm-tests, unit, lint, doc, ...: see in/build.sh
		  vm-run SCRIPT         run SCRIPT in a virtual machine (CPUS, MEM, ICOUNT, NOMODULE, TIMEOUT, ARGS)
		  vm-shell              a shell in the same machine
		  vm-test               all scenarios of vm-tests, or those that match FILTER
		  test                  lint, unit, vm-test
		  test-debug            the scenarios on the debug kernel, then a search for leaks
		  test-kcsan            the concurrent scenarios on the kernel with KCSAN
		  install [DESTDIR]     the module and xlbctl
		  shell [root]          a shell in the build root
		  exec COMMAND...       a command in the build root, in the copied sources
		  fmt                   format the checkout
		  clean                 forget build results of this checkout
	END
}

main() {
	local verb=${1:-help}
	shift || true
	# One command a line: the shell ignores errors inside what stands left of "&&".
	case $verb in
	setup) setup ;;
	kernel)
		setup_root
		choose_kernel
		echo "$version"
		;;
	build)
		setup
		build "$@"
		[ -n "${DEBUG:-}" ] || copy_out "$(kdir)/xlb.ko" kmod/xlb.ko
		copy_out bin/xlbctl target/xlbctl 755
		;;
	vm-run)
		[ -n "${1:-}" ] || die "which script?  SCRIPT=path/to/script.sh"
		setup
		build_missing
		vm "$1"
		;;
	vm-shell)
		setup
		build_missing
		vm
		;;
	vm-test)
		setup
		vm_test
		;;
	test) test_all ;;
	test-debug) test_debug ;;
	test-kcsan) test_kcsan ;;
	install)
		setup
		install_all "${1:-}"
		;;
	shell)
		setup_root
		inside "${1:-xlb}" bash
		;;
	exec)
		setup
		inside root COPY=cargo bash "$(script sync.sh)"
		inside xlb XLB_KERNEL="$kernel" CARGO_TARGET_DIR=/xlb/work/target sh -c 'cd /xlb/work/src-cargo && exec "$@"' sh "$@"
		;;
	fmt)
		setup_root
		XLB_WRITE=1 inside root bash "$(script fmt.sh)"
		;;
	clean) rm -rf --one-file-system "$work" "$repo/kmod/xlb.ko" "$repo/target" ;;
	help | --help) usage ;;
	*)
		usage >&2
		exit 2
		;;
	esac
}
main "$@"; exit # one line: the file may change while it runs
