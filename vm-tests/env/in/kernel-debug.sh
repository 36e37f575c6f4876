# SPDX-License-Identifier: GPL-2.0
# Builds in $OUT a kernel with checkers from the sources of the stock kernel $VERSION, in the
# same shape as in/kernel.sh makes a stock one.  FRAGMENTS: which of kconfig/, what a later one
# says over what an earlier one did.
set -euo pipefail
. /xlb/env/in/kernel-lib.sh
v=$VERSION
s=$(series "$v")
fragments=()
for f in $FRAGMENTS; do fragments+=("/xlb/kconfig/$f"); done

mkdir -p "$OUT/build"
cd "$OUT"
fetch debs "linux-source-$s"
dpkg-deb -x debs/*.deb src
tar xf src/usr/src/linux-source-*.tar.xz -C build --strip-components=1 \
	--exclude='*/Documentation/*.rst' --exclude='*/Documentation/*.yaml' --exclude='*/tools/testing/*' --exclude='*/tools/perf/*' \
	--exclude='*/drivers/gpu/drm/amd/*.[ch]'
rm -rf debs src
cd build
for p in /xlb/patches/"$s"/*.patch; do [ ! -e "$p" ] || patch -p1 <"$p"; done

# Kconfig offers KASAN together with Rust to clang only, and KCSAN instruments Rust as clang does C.
export LLVM=1
make defconfig
make kvm_guest.config
scripts/kconfig/merge_config.sh -m .config "${fragments[@]}"
make olddefconfig

# A request that Kconfig dropped (an unmet dependency, a renamed symbol) is an error: a
# checker that is silently off would make the tests say "clean".
wanted() {
	awk '/^(# )?CONFIG_/ && match($0, /CONFIG_[A-Za-z0-9_]+/) { last[substr($0, RSTART, RLENGTH)] = $0 }
		END { for (name in last) print last[name] }' "$@"
}
lost=0
while read -r line; do
	case $line in
	CONFIG_*) grep -qxF "$line" .config || { echo "lost: $line"; lost=1; } ;;
	'# CONFIG_'*' is not set')
		name=${line#\# }
		name=${name%% *}
		! grep -q "^$name=[ym]" .config || { echo "still set: $name"; lost=1; }
		;;
	esac
done < <(wanted "${fragments[@]}")
[ "$lost" = 0 ] || exit 1

export KBUILD_BUILD_USER=xlb KBUILD_BUILD_HOST=xlb
make "$(jobs_arg)" LOCALVERSION= vmlinux modules
make LOCALVERSION= modules_prepare

release=$(cat include/config/kernel.release)
mkdir -p "../pkg/usr/lib/modules/$release"
make LOCALVERSION= modules_install INSTALL_MOD_PATH=../pkg/usr DEPMOD=true
depmod -b ../pkg/usr "$release" || true
# BTF stays; the DWARF (half a gigabyte) has served its purpose.
strip -g -o ../vmlinux vmlinux
ln -f ../vmlinux vmlinux
# The tree stays for building modules, without the objects of the kernel itself.
find . -name '*.o' ! -path './scripts/*' ! -path './tools/*' -delete
find . -name '*.cmd' ! -path './scripts/*' ! -path './tools/*' ! -path './rust/*' -delete
find . \( -name '*.a' -o -name 'vmlinux.unstripped' -o -name '.tmp_vmlinux*' \) -delete
echo "$release" >../version
