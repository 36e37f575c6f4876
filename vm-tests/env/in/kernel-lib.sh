# SPDX-License-Identifier: GPL-2.0
# apt as an ordinary user with its own lists; unpacking.  Sourced by kernel*.sh.

mkdir -p /xlb/apt/state/lists/partial /xlb/apt/cache/archives/partial
apt_own=(-o Dir::State=/xlb/apt/state -o Dir::State::status=/var/lib/dpkg/status
	-o Dir::Cache=/xlb/apt/cache -o APT::Sandbox::User= -o Acquire::Retries=3 -o Acquire::Languages=none)

lists_update() {
	echo "updating package lists"
	apt-get "${apt_own[@]}" -q update
	touch /xlb/apt/state/updated
}
# Lists of this day are good enough to choose by.
lists_fresh() { [ -n "$(find /xlb/apt/state/updated -mtime -1 2>/dev/null)" ]; }

# fetch DIR PACKAGE...: the archive may have moved on since the lists were read.
fetch() {
	local dir=$1
	shift
	mkdir -p "$dir"
	(cd "$dir" && apt-get "${apt_own[@]}" -q download "$@") && return 0
	lists_update
	(cd "$dir" && apt-get "${apt_own[@]}" -q download "$@")
}

# series 7.3.4+deb13-cloud-amd64: 7.3
series() { printf %s "$1" | cut -d. -f1,2; }

jobs_arg() { printf -- '-j%s' "$(nproc)"; }

# The kernel as an ELF file that QEMU starts directly (PVH), without the seconds that an
# emulated CPU needs to decompress it.
uncompressed() { bash "$1/scripts/extract-vmlinux" "$2"; }
