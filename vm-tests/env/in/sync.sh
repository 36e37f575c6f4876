# SPDX-License-Identifier: GPL-2.0
# Copies the checkout to /xlb/work/src, readable by the build user.  Times are kept, so
# that only what changed is compiled again.
set -eu
exec rsync -rlt --delete --delete-excluded --chmod=D755,F644,Fa+rX --executability \
	--exclude=/.git --exclude=/target --exclude='*.ko' --exclude=node_modules --exclude=__pycache__ \
	--exclude='/kmod/engine/fuzz/target' --exclude='/kmod/engine/fuzz/corpus-work' \
	/xlb/repo/ /xlb/work/src/
