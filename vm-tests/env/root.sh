# SPDX-License-Identifier: GPL-2.0
# Makes the build root: a Debian trixie tree with the toolchain that Debian's kernels are
# built with, and with the programs that the tests run.  Sourced by env.

# The user inside the root that compiles and runs QEMU; no such user exists on the host.
BUILD_UID=58585

host_packages() {
	local want=() p
	for p in mmdebstrap debian-archive-keyring util-linux; do
		dpkg-query -W -f '${db:Status-Abbrev}' "$p" 2>/dev/null | grep -q '^ii' || want+=("$p")
	done
	# An old keyring does not know trixie.
	[ -e /usr/share/keyrings/debian-archive-trixie-stable.gpg ] ||
		[ -e /usr/share/keyrings/debian-archive-trixie-stable.pgp ] ||
		case " ${want[*]} " in *debian-archive-keyring*) ;; *) want+=(debian-archive-keyring) ;; esac
	[ ${#want[@]} -eq 0 ] && return 0
	step "installing on this machine: ${want[*]}" - sh -c '
		export DEBIAN_FRONTEND=noninteractive
		apt-get install -y --no-install-recommends "$@" ||
			{ apt-get update && apt-get install -y --no-install-recommends "$@"; }' sh "${want[@]}"
}

# The archive that this machine's own apt takes Debian from.
mirror() {
	local uri
	uri=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
		awk '$2 == "main" && $1 !~ /[-\/]/ && $3 ~ /^(https?|file|copy|mirror\+file):/ { print $3; exit }')
	case $uri in
	# Debian's cloud images keep the address in a file, which the new root does not have.
	mirror+file:*) awk '!/^#/ && NF { print $1; exit }' "/${uri#mirror+file:*/}" ;;
	*) printf '%s\n' "$uri" ;;
	esac
}

# How this machine's apt reaches it: proxies, retries, TLS, date checks.
apt_options() {
	apt-config dump --format '%F "%v";%n' |
		grep -E '^Acquire::(http|https|Retries|ForceIPv|Check-|Max-)[^ ]* "[^"]+";$' || true
}

debootstrap_into() {
	local out=$1 uri options include
	uri=$(mirror)
	[ -n "$uri" ] || die "apt knows no Debian archive here: put one in /etc/apt/sources.list"
	options=$(mktemp)
	apt_options >"$options"
	include=$(sed 's/#.*//' "$here/packages" "$here/peers" | xargs | tr ' ' ,)
	rm -rf --one-file-system "$out"
	step "build root: Debian trixie with $(echo "$include" | tr , '\n' | wc -l) packages, about 3.5 GB" "$out" \
		mmdebstrap --variant=apt --aptopt="$options" --include="$include" \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		`# Java's alternatives fail without this folder` --essential-hook='mkdir -p "$1/usr/share/man/man1"' \
		--customize-hook="chroot \"\$1\" useradd --uid $BUILD_UID --user-group --home-dir /xlb/home --shell /bin/bash xlb" \
		--customize-hook='mkdir -p "$1/xlb"; rm -f "$1"/etc/resolv.conf "$1"/etc/machine-id; touch "$1"/etc/resolv.conf "$1"/etc/machine-id; echo xlb >"$1/etc/hostname"; printf "127.0.0.1 localhost xlb\n::1 localhost\n" >"$1/etc/hosts"' \
		trixie "$out" "deb $uri trixie main" "deb $uri trixie-backports main" || return
	rm -f "$options"
}
