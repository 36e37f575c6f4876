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
	echo close
	;;
/204) head 204 ;;
/304) head 304 'etag: "e"' ;;
/echo)
	# Apache reads nothing of a script before the script has read the whole body.
	body=$(mktemp)
	cat >"$body"
	head 200 "$text"
	cat "$body"
	rm "$body"
	;;
*)
	head 404 "$text"
	echo not here
	;;
esac
# When a script ends at once Apache has seen the whole body and sends its length, else chunks:
# always chunks here.
sleep 0.05
