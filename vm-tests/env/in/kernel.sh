# SPDX-License-Identifier: GPL-2.0
# Prepares the stock kernel $VERSION in $OUT: packages, and a tree to build Rust modules
# against.  Debian's headers package lacks the Rust metadata.  Made again from the same
# sources, configuration and compilers they come out with the very symbol names of the
# shipped kernel; what else identifies the build (symbols, types, version) is taken from
# the headers package.
set -euo pipefail
. /xlb/env/in/kernel-lib.sh
v=$VERSION
s=$(series "$v")
binary=linux-binary-$v
apt-cache "${apt_own[@]}" show "$binary" >/dev/null 2>&1 || binary=linux-binary-unsigned-$v

built=$(apt-cache "${apt_own[@]}" show "linux-headers-$v" | sed -n 's/^Version: //p' | head -n 1)

mkdir -p "$OUT"
cd "$OUT"
# The sources of this very build, or none: others would give other symbol names.
fetch debs "linux-headers-$v" "linux-modules-$v" "$binary" "linux-base-$v" "linux-source-$s=$built" || {
	echo "the archive no longer has all of $v: KERNEL=newest asks it again"
	exit 1
}
for d in debs/*.deb; do
	case $d in
	debs/linux-source-*) dpkg-deb -x "$d" src ;;
	*) dpkg-deb -x "$d" pkg ;;
	esac
done
rm -rf debs pkg/usr/share

# Nothing of drivers, file systems and other architectures is compiled: their Kconfig
# files and headers are enough.
mkdir build
tar xf src/usr/src/linux-source-*.tar.xz -C build --strip-components=1 --wildcards \
	--exclude='*/Documentation/*.rst' --exclude='*/Documentation/*.yaml' --exclude='*/drivers/*.c' --exclude='*/sound/*.c' --exclude='*/fs/*.c' \
	--exclude='*/tools/testing/*' --exclude='*/tools/perf/*' --exclude='*/drivers/gpu/*.h' \
	--exclude='*/arch/*/*.dts*' --exclude='*/samples/*.c'
rm -rf src

headers=$OUT/pkg/usr/src/linux-headers-$v
cd build
cp "../pkg/usr/lib/modules/$v/config" .config
make olddefconfig KERNELRELEASE="$v"
grep -qx CONFIG_RUST=y .config || { echo "CONFIG_RUST is lost: make rustavailable says:"; make rustavailable; exit 1; }
make "$(jobs_arg)" prepare KERNELRELEASE="$v"

cp "$headers/Module.symvers" "$headers/vmlinux" .
cp "$headers/include/generated/utsrelease.h" include/generated/
cp "$headers/include/config/kernel.release" include/config/
make "$(jobs_arg)" modules_prepare KERNELRELEASE="$v"
test "$(cat include/config/kernel.release)" = "$v"

modules=$OUT/pkg/usr/lib/modules/$v
uncompressed . "$modules/vmlinuz" >../vmlinux
depmod -b "$OUT/pkg/usr" "$v" 2>/dev/null || depmod -b "$OUT/pkg" "$v" || true
rm -rf "$OUT/pkg/usr/src"
echo "$v" >"$OUT/version"
