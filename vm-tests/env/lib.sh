# SPDX-License-Identifier: GPL-2.0
# Progress lines, cached stages and the lock.  Sourced, on the host and in the build root.

say() { printf '%s\n' "$*" >&2; }
die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# "1.2 GB"; nothing when the path is not there.
size_of() {
	[ -e "$1" ] || return 0
	du -sk "$1" 2>/dev/null |
		awk '{ k = $1; if (k >= 1048576) printf "%.1f GB", k / 1048576; else printf "%.0f MB", k / 1024 }'
}

# step TEXT WATCHED COMMAND...: one line at the start, one every ten seconds with the
# size of WATCHED ("-" for none), one at the end.  The command's output goes to a log,
# of which the end is shown when it fails.
step() {
	local text=$1 watched=$2 log begin ticker rc=0
	shift 2
	log=$(mktemp "${TMPDIR:-/tmp}/xlb-step.XXXXXX")
	begin=$SECONDS
	say "==> $text"
	(
		# $$ is the script itself: when it is killed, this ends too.
		while sleep 10 && kill -0 $$ 2>/dev/null; do
			say "    $((SECONDS - begin)) s$([ "$watched" = - ] || printf ', %s' "$(size_of "$watched")")"
		done
	) {lock_fd}>&- &
	ticker=$!
	"$@" >"$log" 2>&1 </dev/null || rc=$?
	kill "$ticker" 2>/dev/null
	wait "$ticker" 2>/dev/null || true
	if [ "$rc" -ne 0 ]; then
		tail -n 40 "$log" >&2
		say "error: $text: failed after $((SECONDS - begin)) s, status $rc; whole log: $log"
		return "$rc"
	fi
	rm -f "$log"
	say "    done in $((SECONDS - begin)) s$([ "$watched" = - ] || printf ', %s' "$(size_of "$watched")")"
}

# hash_of FILE...: twelve hex digits that change when any of the files does, comments apart.
hash_of() { sed '/^# CONFIG_/b; /^[[:space:]]*#/d; /^$/d' "$@" | sha256sum | cut -c1-12; }

# stage DIR COMMAND...: makes the directory DIR by running COMMAND with DIR.tmp as last
# argument.  DIR exists only when it is whole: an interrupted run leaves DIR.tmp, which
# the next one throws away.
stage() {
	local dir=$1
	shift
	[ -d "$dir" ] && return 0
	if [ -e "$dir.tmp" ]; then
		say "==> an earlier set-up was interrupted: starting over with ${dir##*/}"
		rm -rf --one-file-system "$dir.tmp"
	fi
	"$@" "$dir.tmp" || return
	mv -T "$dir.tmp" "$dir"
}

# locked FILE COMMAND...: runs COMMAND while holding the lock FILE.  Its processes inherit
# the lock: when this script is killed, nobody works in the same place before they are gone.
lock_fd=9
locked() {
	local file=$1 rc=0
	shift
	exec {lock_fd}>>"$file"
	if ! flock -n "$lock_fd"; then
		say "==> waiting for another set-up or build to end ($file)"
		flock "$lock_fd"
	fi
	"$@" || rc=$?
	exec {lock_fd}>&-
	lock_fd=9
	return "$rc"
}
