# SPDX-License-Identifier: GPL-2.0
# Copies the checkout to /xlb/work/src-$COPY, where the build user can read it and where an
# edit does not reach a running build.  What differs gets the present time: with the time
# of its edit, a file that was edited during a build would look older than its object.
set -eu
exec rsync -rlcp --delete --delete-excluded --chmod=D755,Fu+rw,Fgo+r,Fgo-w \
	--exclude=/.git --exclude=/target --exclude=target --exclude='*.ko' --exclude=node_modules \
	--exclude=__pycache__ --exclude=corpus-work \
	/xlb/repo/ "/xlb/work/src-$COPY/"
