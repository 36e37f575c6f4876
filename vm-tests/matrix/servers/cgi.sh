#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What Apache of the matrix does not serve from files; ../README.md has the paths.
head() { # STATUS FIELD...
	kind=${PATH_INFO#/}
	printf 'Status: %s\r\nx-kind: %s\r\n' "$1" "$kind"
	shift
	for field; do printf '%s\r\n' "$field"; done
	printf '\r\n'
}
text='Content-Type: text/plain'
case $PATH_INFO in
/chunked2)
	head 200 "$text"
	echo first part
	sleep 0.05
	echo second part
	;;
/close)
	head 200 "$text"
	echo ended by
	# Apache sends the length of what a script wrote before it ended at once.
	sleep 0.05
	echo close
	;;
/204) head 204 ;;
/304) head 304 'etag: "e"' ;;
/echo)
	# Apache reads nothing of a script before the script has read the whole body.
	body=$(mktemp)
	cat >"$body"
	head 200 "$text" "Content-Length: $(stat -c %s "$body")"
	cat "$body"
	rm "$body"
	;;
*)
	head 404 "$text" 'Content-Length: 9'
	echo not here
	;;
esac
