# SPDX-License-Identifier: GPL-2.0
# Formats the checkout in place, as its owner.
set -euo pipefail
if [ "$(id -u)" != "$(stat -c %u /xlb/repo)" ]; then
	exec setpriv --reuid="$(stat -c %u /xlb/repo)" --regid="$(stat -c %g /xlb/repo)" --clear-groups bash "$0"
fi
cd /xlb/repo
find kmod bpf \( -name '*.c' -o -name '*.h' \) ! -name 'vmlinux*.h' -print0 | xargs -0r clang-format -i
find kmod bpf control xlbctl vm-tests -name '*.rs' ! -path '*/target/*' -print0 | xargs -0r rustfmt --edition 2021
