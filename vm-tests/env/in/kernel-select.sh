# SPDX-License-Identifier: GPL-2.0
# Writes to $RESULT the version of the newest stock kernel that matches $KERNEL ("", "7.3",
# "7.3-rt" or a full version), has all the packages that a Rust module needs, and has Rust.
set -euo pipefail
. /xlb/env/in/kernel-lib.sh

# Of Debian's flavours the one for virtual machines, unless that with PREEMPT_RT is asked for.
flavour=cloud
case $KERNEL in *-rt | *-rt-amd64) flavour=rt ;; esac
want=${KERNEL%-rt}

versions_of() { apt-cache "${apt_own[@]}" show "$1" 2>/dev/null | sed -n 's/^Version: //p'; }

# The package with the kernel image: the signed one where there is one.
binary_of() {
	local p
	for p in "linux-binary-$1" "linux-binary-unsigned-$1"; do
		[ -z "$(versions_of "$p")" ] || { echo "$p" && return 0; }
	done
	return 1
}

candidates() {
	apt-cache "${apt_own[@]}" search --names-only "^linux-headers-7\.[0-9.]+[^-]*-$flavour-amd64\$" |
		sed 's/^linux-headers-\([^ ]*\) .*/\1/' | sort -rV
}

complete() { # VERSION: all packages are there, and the sources are those of this very build
	local v=$1 p source
	binary_of "$v" >/dev/null || return 1
	for p in "linux-modules-$v" "linux-base-$v"; do [ -n "$(versions_of "$p")" ] || return 1; done
	source=$(versions_of "linux-source-$(series "$v")")
	[ -n "$source" ] || return 1
	versions_of "linux-headers-$v" | grep -qxF "$source"
}

has_rust() {
	local t ok=1
	t=$(mktemp -d)
	fetch "$t" "linux-base-$1" && dpkg-deb -x "$t"/*.deb "$t" &&
		grep -qx CONFIG_RUST=y "$t/usr/lib/modules/$1/config" && ok=0
	rm -rf "$t"
	return $ok
}

choose() {
	local v
	while read -r v; do
		case $v in
		"$want" | "$want".*) ;;
		*) [ -z "$want" ] || continue ;;
		esac
		complete "$v" && has_rust "$v" && echo "$v" >"$RESULT" && echo "chosen: $v" && return 0
		echo "not usable: $v (packages missing, sources of another build, or no Rust)"
	done < <(candidates)
	return 1
}

lists_fresh || lists_update
choose || { lists_update && choose; } || {
	echo "no stock kernel '${KERNEL:-7.x}' with headers, modules, sources of the same build and CONFIG_RUST=y; there are:"
	candidates
	exit 1
}
