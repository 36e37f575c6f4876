// SPDX-License-Identifier: GPL-2.0
// libcurl's multi interface as a client of the matrix; ../README.md has the arguments and the output.
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

struct body {
	const unsigned char *from;
	size_t left;
	uLong crc;
	size_t length;
};

static char *big;
static size_t big_length;
static long limit_ms;

static size_t take(char *data, size_t one, size_t length, void *arg)
{
	struct body *body = arg;

	(void)one;
	body->crc = crc32(body->crc, (const unsigned char *)data, length);
	body->length += length;
	return length;
}

static size_t give(char *data, size_t one, size_t room, void *arg)
{
	struct body *body = arg;
	size_t length = one * room < body->left ? one * room : body->left;

	memcpy(data, body->from, length);
	body->from += length;
	body->left -= length;
	return length;
}

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

// Runs one transfer in `multi`, which keeps the connections.
static CURLcode perform(CURLM *multi, CURL *easy)
{
	CURLcode result = CURLE_OPERATION_TIMEDOUT;
	int running = 1, left;
	CURLMsg *message;

	curl_multi_add_handle(multi, easy);
	while (running) {
		curl_multi_perform(multi, &running);
		if (running)
			curl_multi_poll(multi, NULL, 0, 1000, NULL);
	}
	while ((message = curl_multi_info_read(multi, &left)))
		if (message->msg == CURLMSG_DONE)
			result = message->data.result;
	curl_multi_remove_handle(multi, easy);
	return result;
}

// Prints a string of the server as JSON: what is not plain text becomes '?'.
static void quote(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		putchar(*text < ' ' ? '?' : *text);
	}
	putchar('"');
}

static void print_headers(CURL *easy)
{
	static const char *const shown[] = { "content-type", "content-length", "x-kind", "etag" };
	const char *comma = "";
	struct curl_header *header;

	printf("\"headers\":{");
	for (size_t i = 0; i < sizeof(shown) / sizeof(*shown); i++) {
		if (curl_easy_header(easy, shown[i], 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
			continue;
		printf("%s\"%s\":", comma, shown[i]);
		quote(header->value);
		comma = ",";
	}
	printf("}");
}

static void ask(CURLM *multi, const char *via, const char *base, char *request)
{
	char *rest = request, url[256];
	const char *kind = strsep(&rest, ","), *method = strsep(&rest, ","), *path = strsep(&rest, ",");
	size_t length = strtoul(strsep(&rest, ","), NULL, 10);
	const char *flag = rest;
	struct body in = { .crc = crc32(0, NULL, 0) }, out = { .from = (unsigned char *)big, .left = length };
	struct curl_slist *fields = NULL;
	CURL *easy = curl_easy_init();
	long begin, status = 0;
	CURLcode result;

	if (length > big_length)
		exit(2);
	snprintf(url, sizeof(url), "%s%s", base, path);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, &in);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, limit_ms);
	curl_easy_setopt(easy, CURLOPT_EXPECT_100_TIMEOUT_MS, limit_ms);
	if (!strcmp(method, "HEAD"))
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	if (length > 0) {
		curl_easy_setopt(easy, CURLOPT_POST, 1L);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)length);
		curl_easy_setopt(easy, CURLOPT_READFUNCTION, give);
		curl_easy_setopt(easy, CURLOPT_READDATA, &out);
		// libcurl asks by itself before large bodies.
		fields = curl_slist_append(fields, strcmp(flag, "expect") ? "Expect:" : "Expect: 100-continue");
	}
	if (!strcmp(flag, "close"))
		fields = curl_slist_append(fields, "Connection: close");
	if (!strcmp(flag, "http10"))
		curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_0);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, fields);
	begin = now_ms();
	result = perform(multi, easy);
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	printf("{\"via\":\"%s\",\"kind\":\"%s\",\"status\":%ld,\"length\":%zu,\"crc\":%lu,", via, kind, status,
	       in.length, in.crc);
	print_headers(easy);
	printf(",\"ms\":%ld,\"error\":", now_ms() - begin);
	if (result == CURLE_OK)
		printf("null}\n");
	else
		printf("\"%s\"}\n", curl_easy_strerror(result));
	fflush(stdout);
	curl_easy_cleanup(easy);
	curl_slist_free_all(fields);
}

int main(int argc, char **argv)
{
	FILE *file;

	if (argc < 5)
		return 2;
	limit_ms = atol(argv[1]);
	file = fopen(argv[2], "rb");
	if (!file)
		return 2;
	fseek(file, 0, SEEK_END);
	big_length = ftell(file);
	rewind(file);
	big = malloc(big_length);
	if (!big || fread(big, 1, big_length, file) != big_length)
		return 2;
	fclose(file);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	for (int i = 4; i < argc; i++) {
		char *base = argv[i], *requests = strdup(argv[3]), *rest = requests, *request;
		const char *via = strsep(&base, "=");
		CURLM *multi = curl_multi_init();

		while ((request = strsep(&rest, ";")))
			ask(multi, via, base, request);
		curl_multi_cleanup(multi);
		free(requests);
	}
	return 0;
}
