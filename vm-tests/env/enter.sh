#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Runs a command in the build root.  Called by env.sh in a fresh mount and process
# namespace: what is mounted here is seen by nobody else and ends with the command.
#
# The root itself is read-only.  Of the host the command sees: the checkout (read-only),
# the folders of the cache that it works in, name resolution, the CA bundle, and the
# machine's own cargo, pip and npm settings, without which there is no registry here.
set -euo pipefail
mount --make-rprivate /
m=$XLB_MNT
mount --bind "$XLB_ROOT" "$m"
mount -o remount,bind,ro "$m"

mount -t proc proc "$m/proc" 2>/dev/null || mount --rbind /proc "$m/proc"
mount -t tmpfs -o mode=1777 tmp "$m/tmp"
mount -t tmpfs -o mode=755 run "$m/run"
mount -t tmpfs -o mode=755 dev "$m/dev"
for n in null zero full random urandom tty; do
	: >"$m/dev/$n"
	mount --bind "/dev/$n" "$m/dev/$n"
done
mkdir "$m/dev/shm" "$m/dev/pts"
mount -t tmpfs -o mode=1777 shm "$m/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 pts "$m/dev/pts" 2>/dev/null || mount --bind /dev/pts "$m/dev/pts"
ln -s pts/ptmx "$m/dev/ptmx"
ln -s /proc/self/fd "$m/dev/fd"
ln -s fd/0 "$m/dev/stdin"
ln -s fd/1 "$m/dev/stdout"
ln -s fd/2 "$m/dev/stderr"
# A node of our own: the build user may use it whatever the rights of the host's.
if [ -c /dev/kvm ]; then
	mknod -m 600 "$m/dev/kvm" c 10 232 2>/dev/null && chown "$XLB_UID" "$m/dev/kvm" || rm -f "$m/dev/kvm"
fi

mount -t tmpfs -o mode=755 xlb "$m/xlb"
cd "$m/xlb"
bind() { # FROM NAME [ro]
	mkdir -p "$2"
	mount --bind "$1" "$2"
	[ "${3:-}" != ro ] || mount -o remount,bind,ro "$2"
}
if [ -n "${XLB_WRITE:-}" ]; then bind "$XLB_REPO" repo; else bind "$XLB_REPO" repo ro; fi
# The scripts of the environment, readable by all and the same until the command ends.
cp -r --no-preserve=ownership "$XLB_REPO/vm-tests/env" "$XLB_REPO/kconfig" "$XLB_REPO/patches" .
chmod -R a+rX env kconfig patches
bind "$XLB_WORK" work
bind "$XLB_KERNELS" kernels
bind "$XLB_DEBUGS" debugs
bind "$XLB_PYPI" pypi
bind "$XLB_APT" apt
bind "$XLB_CARGO" cargo
[ -z "${XLB_CASE:-}" ] || bind "$XLB_CASE" case
# The root once more, without what is mounted in it, for the machines.
bind "$XLB_ROOT" rootfs ro

give() { # FROM TO: a copy that only the build user can read, gone with the namespace
	[ -f "$1" ] || return 0
	install -D -m 400 -o "$XLB_UID" -g "$XLB_UID" "$1" "$2"
}
cargo_home=${CARGO_HOME:-${HOME:-/root}/.cargo}
install -d -o "$XLB_UID" -g "$XLB_UID" home .cargo
for f in "$cargo_home/config.toml" "$cargo_home/config"; do
	[ -f "$f" ] && give "$f" .cargo/config.toml && break
done
give /etc/pip.conf home/pip.conf
give /etc/npmrc home/npmrc
ca=/etc/ssl/certs/ca-certificates.crt
for f in "${SSL_CERT_FILE:-}" "${CURL_CA_BUNDLE:-}" $ca; do
	[ -s "$f" ] && mount --bind "$f" "$m$ca" && break
done
[ ! -e /etc/resolv.conf ] || mount --bind "$(readlink -f /etc/resolv.conf)" "$m/etc/resolv.conf"
mount --bind /etc/hosts "$m/etc/hosts"

vars=()
while IFS= read -r name; do
	case $name in
	*CERT* | *CAINFO*) ;;
	http_proxy | https_proxy | no_proxy | all_proxy | HTTP_PROXY | HTTPS_PROXY | NO_PROXY | ALL_PROXY | \
		CARGO_HTTP_* | CARGO_NET_* | CARGO_REGISTRY_* | CARGO_REGISTRIES_* | CARGO_SOURCE_* | \
		PIP_* | NPM_CONFIG_* | npm_config_*) vars+=("$name=${!name}") ;;
	esac
done < <(compgen -e)
vars+=(HOME=/xlb/home CARGO_HOME=/xlb/cargo CARGO_HTTP_CAINFO=$ca SSL_CERT_FILE=$ca
	PIP_CONFIG_FILE=/xlb/home/pip.conf NPM_CONFIG_GLOBALCONFIG=/xlb/home/npmrc
	PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM="${TERM:-dumb}")

drop=()
[ "$XLB_USER" = root ] ||
	drop=(setpriv --reuid="$XLB_UID" --regid="$XLB_UID" --clear-groups --no-new-privs --inh-caps=-all)
exec chroot "$m" env -i "${vars[@]}" XLB_UID="$XLB_UID" "${drop[@]}" env "$@"
