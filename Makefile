# SPDX-License-Identifier: GPL-2.0
# The verbs of the project: `make help`.  The work is done by vm-tests/env/env.sh.

env := vm-tests/env/env.sh
export KERNEL CPUS MEM ICOUNT DEBUG NOMODULE TIMEOUT ARGS APPEND V XLB_CACHE FILTER QUICK XLB_ALL XLB_SEED XLB_CLIENTS XLB_STORM

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup kmod bpf xlbctl demo test unit vm-test vm-shell vm-run lint fmt doc clean \
	install test-all test-debug test-kcsan bench bench-config bench-locks

help:
	@echo 'XLB: a layer-7 load balancer in the Linux kernel'
	@echo
	@echo '  make demo        set up all, then show requests balanced one by one on a stock kernel'
	@echo '  make test        set up all, then lint, unit tests, tests in virtual machines'
	@echo
	@echo '  kmod             the module for the chosen kernel: kmod/xlb.ko'
	@echo '  bpf              the BPF policy'
	@echo '  xlbctl           the command: target/xlbctl'
	@echo '  unit             tests that need no kernel'
	@echo '  vm-test          real clients and servers in a virtual machine; FILTER=name picks scenarios'
	@echo '  test-all         as test, with every cell of the matrix of clients and servers; test draws a part'
	@echo '                   by a seed that it prints: XLB_SEED=n draws the same again'
	@echo '  test-debug       vm-test on a kernel with KASAN, lockdep, kmemleak (built once, cached)'
	@echo '  test-kcsan       the concurrent scenarios on a kernel with KCSAN, which finds data races (built once, cached)'
	@echo '  bench            requests per virtual second: direct, XLB, haproxy; QUICK=1 for a short one'
	@echo '  bench-config     part of bench, not of a short one: time and memory of large configurations'
	@echo '  bench-locks      part of bench, not of a short one: how often a request takes each lock, on the debug kernel'
	@echo '  vm-run           SCRIPT=path/to/x.sh runs it in the machine, in its own folder (/case there,'
	@echo '                   writable); ARGS="..." are given to it.  Exit: the status of the script; 97 when'
	@echo '                   the kernel log has a finding; 98 machine died; 124 after TIMEOUT seconds'
	@echo '                   (make itself says "Error N" and exits with 2; vm-tests/env/env.sh vm-run'
	@echo '                   FILE exits with N).  NOBUILD=1 takes the module and xlbctl as last built'
	@echo '  vm-shell         a shell in the same machine'
	@echo '  lint fmt doc     rustfmt, clippy, clang-format, rustdoc; format; documentation'
	@echo '  install          the module and xlbctl, under DESTDIR'
	@echo '  clean            forget what was built from this checkout (the cache stays)'
	@echo
	@echo '  KERNEL=7.3       or a full version; default: the newest stock 7.x kernel of backports with Rust,'
	@echo '                   as first chosen; KERNEL=newest looks again'
	@echo '                   KERNEL=7.3-rt: the one with PREEMPT_RT'
	@echo '  DEBUG=1          vm-run, vm-shell, vm-test, kmod: on the debug kernel; DEBUG=kcsan: on that with KCSAN'
	@echo '  CPUS=2 MEM=2G ICOUNT=1 NOMODULE=1 TIMEOUT=900   of the machine; ICOUNT counts instructions'
	@echo '  XLB_STORM=3600   vm-test FILTER=storm/: for so many seconds; default: 60.  XLB_SEED=n draws the same again'
	@echo '  XLB_CACHE=...    where build root and kernels are kept; default: ~/.cache/xlb'

setup:
	@$(env) setup

kmod bpf xlbctl unit lint doc:
	@$(env) build $@

demo:
	@$(env) build kmod xlbctl
	@$(env) vm-run vm-tests/demo/demo.sh

vm-test:
	@$(env) build kmod xlbctl vm-tests
	@$(env) vm-test

test:
	@$(env) test

test-all:
	@XLB_ALL=1 $(env) test

test-debug:
	@DEBUG=1 $(env) build kmod xlbctl vm-tests
	@$(env) test-debug

test-kcsan:
	@DEBUG=kcsan $(env) build kmod xlbctl vm-tests
	@$(env) test-kcsan

bench:
	@$(env) build kmod xlbctl
	@ICOUNT=1 $(env) vm-run vm-tests/bench/bench.sh
ifeq ($(QUICK),)
	@$(MAKE) --no-print-directory bench-config bench-locks
endif

bench-config:
	@$(env) build kmod xlbctl
	@ICOUNT=1 $(env) vm-run vm-tests/bench/config.sh

bench-locks:
	@DEBUG=1 $(env) build kmod xlbctl
	@for cpus in 1 2; do DEBUG=1 CPUS=$$cpus APPEND=kmemleak=off $(env) vm-run vm-tests/bench/locks.sh || exit; done

vm-run: $(if $(NOBUILD)$(NOMODULE),,kmod xlbctl)
	@$(if $(SCRIPT),,echo 'SCRIPT=path/to/script.sh is missing' >&2; exit 2;) $(env) vm-run '$(SCRIPT)'

vm-shell: $(if $(NOBUILD)$(NOMODULE),,kmod xlbctl)
	@$(env) vm-shell

fmt clean:
	@$(env) $@

install: kmod xlbctl
	@$(env) install '$(DESTDIR)'
