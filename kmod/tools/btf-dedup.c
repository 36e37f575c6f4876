// SPDX-License-Identifier: GPL-2.0
/*
 * btf-dedup BASE SPLIT: deduplicates the types of SPLIT, the raw BTF of a module,
 * against each other and against those of BASE (the kernel's vmlinux), in place.
 */
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what, const char *path, long err)
{
	fprintf(stderr, "btf-dedup: %s %s: %s\n", what, path, strerror((int)labs(err)));
	return 1;
}

int main(int argc, char **argv)
{
	struct btf *base, *split;
	__u32 before, after, size;
	const void *data;
	FILE *out;
	int err;

	if (argc != 3) {
		fprintf(stderr, "usage: btf-dedup BASE SPLIT\n");
		return 2;
	}
	base = btf__parse(argv[1], NULL);
	if (!base)
		return fail("reading types of", argv[1], errno);
	split = btf__parse_split(argv[2], base);
	if (!split)
		return fail("reading types of", argv[2], errno);

	before = btf__type_cnt(split) - btf__type_cnt(base);
	err = btf__dedup(split, NULL);
	if (err)
		return fail("deduplicating", argv[2], err);
	after = btf__type_cnt(split) - btf__type_cnt(base);

	data = btf__raw_data(split, &size);
	if (!data)
		return fail("encoding", argv[2], errno);
	out = fopen(argv[2], "wb");
	if (!out)
		return fail("writing", argv[2], errno);
	if (fwrite(data, 1, size, out) != size || fclose(out))
		return fail("writing", argv[2], errno);
	printf("  BTF     %s: %u types of its own, %u before\n", argv[2], after, before);

	btf__free(split);
	btf__free(base);
	return 0;
}
