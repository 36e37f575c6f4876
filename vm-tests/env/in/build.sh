# SPDX-License-Identifier: GPL-2.0
# Builds and checks in a copy of the sources, as the build user: build.sh WHAT
#
# Results that others use go to /xlb/work: ko/V/xlb.ko (one folder for each kernel) and bin/
# (on PATH in the machines).
set -euo pipefail
src=/xlb/work/src-$COPY
out=/xlb/work
export CARGO_TARGET_DIR=$out/target CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
export KBUILD_BUILD_USER=xlb KBUILD_BUILD_HOST=xlb KBUILD_BUILD_TIMESTAMP=@0
mkdir -p "$out/bin"
cd "$src"

# Names the kernel among all that this checkout was built for.
kernel_id=$KERNEL_ID
kmod_out=$out/kmod-$kernel_id
tools=$out/tools

say() { printf '==> %s\n' "$*" >&2; }
locked=()
[ ! -e Cargo.lock ] || locked=(--locked)
# cargo_ SUBCOMMAND ARGUMENT...
cargo_() {
	local sub=$1
	shift
	cargo "$sub" "${locked[@]}" "$@"
}
has_package() { grep -qs "^name = \"$2\"" "$1/Cargo.toml"; }
install_bin() { cp "$1" "$out/bin/.new" && mv "$out/bin/.new" "$out/bin/${2:-$(basename "$1")}"; }

# The second deduplication of the module's types (kmod/tools/btf-dedup.c).
pahole_wrapper() {
	mkdir -p "$tools"
	if [ "$src/kmod/tools/btf-dedup.c" -nt "$tools/btf-dedup" ]; then
		gcc -O2 -Wall -Wextra -Werror -o "$tools/btf-dedup.new" "$src/kmod/tools/btf-dedup.c" -lbpf -lelf -lz
		mv "$tools/btf-dedup.new" "$tools/btf-dedup"
	fi
	install -m 755 "$src/kmod/tools/pahole-dedup" "$tools/pahole"
}

# kbuild_ FOLDER ARGUMENT...: Kbuild for the chosen kernel, results in FOLDER.
kbuild_() {
	local folder=$1
	shift
	mkdir -p "$folder"
	pahole_wrapper
	# A module is compiled by what compiled its kernel.
	! grep -qx CONFIG_CC_IS_CLANG=y "$XLB_KERNEL/build/.config" || set -- LLVM=1 "$@"
	make -C "$XLB_KERNEL/build" M="$src/kmod" MO="$folder" PAHOLE="$tools/pahole" \
		"-j$(nproc)" ${V:+V=$V} --no-print-directory "$@"
}

do_kmod() {
	[ -f kmod/Kbuild ] || { echo "error: there is no kmod/Kbuild yet" >&2; return 1; }
	say "module for $kernel_id"
	kbuild_ "$kmod_out" modules
	# Whole or not at all: pahole changes xlb.ko in place after the link.
	mkdir -p "$out/ko/$kernel_id"
	cmp -s "$kmod_out/xlb.ko" "$out/ko/$kernel_id/xlb.ko" || {
		cp "$kmod_out/xlb.ko" "$out/ko/$kernel_id/.new"
		mv "$out/ko/$kernel_id/.new" "$out/ko/$kernel_id/xlb.ko"
	}
	ls -lL --time-style=+%T "$out/ko/$kernel_id/xlb.ko" | awk '{ print "    " $5 " bytes, " $6 }' >&2
}

do_bpf() {
	if [ -f bpf/Makefile ]; then
		say "BPF objects"
		make -C bpf OUT="$out/bpf" "-j$(nproc)"
	else
		# libbpf-cargo compiles them for the skeletons that xlbctl embeds.
		do_xlbctl
	fi
}

do_xlbctl() {
	say "xlbctl (with the BPF policy in it)"
	# For tests of upgrades, with another layout of the maps; the same file, so before the real one.
	cargo_ build --release -p xlbctl --features next-layout
	install_bin "$CARGO_TARGET_DIR/release/xlbctl" xlbctl-next
	cargo_ build --release -p xlbctl
	install_bin "$CARGO_TARGET_DIR/release/xlbctl"
}

do_vm_tests() {
	has_package vm-tests xlb-vm-tests || return 0
	say "vm-tests"
	cargo_ build --release -p xlb-vm-tests -p xlb-matrix-reqwest
	install_bin "$CARGO_TARGET_DIR/release/vm-tests"
	install_bin "$CARGO_TARGET_DIR/release/matrix-reqwest"
	do_matrix
}

# outdated FILE SOURCE...: whether FILE is older than one of the sources, or not there.
outdated() {
	local result=$1 s
	shift
	[ -e "$result" ] || return 0
	for s; do [ "$s" -nt "$result" ] && return 0; done
	return 1
}

# The clients and servers of the matrix that need a compiler, here and not in an emulated machine.
do_matrix() {
	local m=$src/vm-tests/matrix made=$out/matrix part
	mkdir -p "$made"
	for part in client server; do
		if outdated "$out/bin/matrix-go-$part" "$m/${part}s/go/main.go"; then
			say "matrix: Go $part"
			GOCACHE=$out/go-build GO111MODULE=off CGO_ENABLED=0 go build -o "$made/go-$part" "$m/${part}s/go/main.go"
			install_bin "$made/go-$part" "matrix-go-$part"
		fi
	done
	if outdated "$out/bin/matrix-curl" "$m/clients/curl_multi.c"; then
		say "matrix: libcurl client"
		gcc -O2 -Wall -Wextra -Werror -o "$made/curl" "$m/clients/curl_multi.c" -lcurl -lz
		install_bin "$made/curl" matrix-curl
	fi
	if outdated "$out/bin/matrix-java.jar" "$m/clients/JavaClient.java" "$m/servers/TomcatServer.java"; then
		say "matrix: Java client, Tomcat"
		rm -rf "$made/java"
		javac -Xlint:all -cp "/usr/share/java/tomcat10-catalina.jar:/usr/share/java/tomcat10-servlet-api.jar:/usr/share/java/tomcat10-api.jar" \
			-d "$made/java" "$m/clients/JavaClient.java" "$m/servers/TomcatServer.java"
		jar --create --file "$made/java.jar" -C "$made/java" .
		install_bin "$made/java.jar" matrix-java.jar
	fi
}

# Prints cargo's own lines and one total over all test programs and the comparison of parsers.
do_unit() {
	local log rc=0 parsers=0
	say "unit tests"
	log=$(mktemp)
	cargo_ test --workspace --no-fail-fast 2>&1 | tee "$log" || rc=$?
	say "the engine beside other parsers"
	sh kmod/engine/differential/run.sh 20000 || parsers=$?
	[ "$parsers" = 0 ] || rc=$parsers
	awk -v parsers="$parsers" '/^test result:/ { p += $4; f += $6; i += $8 }
		END { if (parsers) f++; else p++
			printf "unit: %d passed, %d failed, %d ignored\n", p, f, i }' "$log"
	rm -f "$log"
	return "$rc"
}

c_files() { find kmod bpf \( -name '*.c' -o -name '*.h' \) ! -name 'vmlinux*.h' -print0; }
do_lint_format() {
	say "clang-format"
	c_files | xargs -0r clang-format --dry-run -Werror
	say "rustfmt"
	find kmod bpf control xlbctl vm-tests -name '*.rs' -print0 | xargs -0r rustfmt --edition 2021 --check
}
do_lint_rust() {
	[ -f Cargo.toml ] || return 0
	say "clippy"
	cargo_ clippy --workspace --all-targets -- -D warnings
	do_doc_checked
}
do_lint_kmod() {
	[ -f kmod/Kbuild ] || return 0
	say "levels of the module"
	sh kmod/tools/levels
	say "module with clippy"
	kbuild_ "$out/clippy-$kernel_id" CLIPPY=1 KRUSTFLAGS=-Dwarnings KCFLAGS=-Werror modules
}
# All parts, whatever the earlier ones said.
do_lint() {
	local part rc=0
	for part in format rust kmod; do
		# A process of its own: in a function left of "||" the shell ignores errors.
		bash "$0" "lint-$part" || { echo "error: lint-$part" >&2; rc=1; }
	done
	[ "$rc" = 0 ] && say "lint: clean"
	return "$rc"
}

do_doc_checked() {
	say "rustdoc"
	RUSTDOCFLAGS='-D warnings' cargo_ doc --workspace --no-deps
}
do_doc() {
	do_doc_checked
	rm -rf "$out/doc" && cp -r "$CARGO_TARGET_DIR/doc" "$out/doc"
}

case $1 in
kmod) do_kmod ;;
bpf) do_bpf ;;
xlbctl) do_xlbctl ;;
vm-tests) do_vm_tests ;;
unit) do_unit ;;
lint) do_lint ;;
lint-format) do_lint_format ;;
lint-rust) do_lint_rust ;;
lint-kmod) do_lint_kmod ;;
doc) do_doc ;;
*)
	echo "error: nothing known as '$1'" >&2
	exit 2
	;;
esac
