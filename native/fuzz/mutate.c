// Fuzzing without libFuzzer: changes inputs of a corpus at random, always in the same way, and calls what fuzzing calls.
//
//   fuzz-open-layer CORPUS RUNS [SEED]     an input on which something goes wrong is left in the file "crash"
//   fuzz-open-layer FILE                   once, with this input

#include <dirent.h>
#include <sanitizer/common_interface_defs.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_SIZE (64 << 10)
#define MAX_INPUTS 4096

struct input {
	uint8_t *bytes;
	size_t size;
};

static struct input inputs[MAX_INPUTS];
static size_t input_count;
// What is being tried, for whoever finds us dead.
static uint8_t current[MAX_SIZE];
static size_t current_size;
static uint64_t state;

// What JSON, TOCs and trees are sensitive to.
static const char *const TOKENS[] = {
	"{", "}", "[", "]", ",", ":", "\"", "\\", "null", "true", "-0", "1e3", "0.5", "9007199254740993", "4294967296", "-1",
	"\"entries\":[", "],\"version\":1", "\"name\":\"", "\"type\":\"", "\"reg\"", "\"dir\"", "\"symlink\"", "\"hardlink\"",
	"\"chunk\"", "\"size\":", "\"linkName\":\"", "\"offset\":", "\"innerOffset\":", "\"chunkOffset\":", "\"chunkSize\":",
	"\"xattrs\":{\"user.a\":\"AA==\"}", "\"xattrs\":{\"trusted.overlay.opaque\":\"\"}", "\"modtime\":\"2026-01-02T03:04:05.5Z\"",
	"\\u0000", "\\ud800", "\\udc80", "\\ud83d\\ude00", "\xc3\xa9", "\xed\xa0\x80", "/", "..", "/../", ".wh.", ".wh..wh..opq",
	".wh..wh.", ".prefetch.landmark", "},{", "{\"name\":\"a/b\",\"type\":\"dir\"},", "{\"name\":\"a\",\"type\":\"symlink\",\"linkName\":\"b\"},",
};

// xorshift64*
static size_t below(size_t limit)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return limit ? (size_t)((state * 0x2545f4914f6cdd1d >> 16) % limit) : 0;
}

static void keep_current(void)
{
	FILE *file = fopen("crash", "wb");
	if (!file)
		return;
	fwrite(current, 1, current_size, file);
	fclose(file);
	fprintf(stderr, "the input is in the file \"crash\"\n");
}

static void on_abort(int signal_number)
{
	(void)signal_number;
	keep_current();
	_exit(1);
}

static void run(void)
{
	// In memory of exactly its size, so that a byte too far is seen.
	uint8_t *bytes = malloc(current_size ? current_size : 1);
	if (!bytes)
		abort();
	memcpy(bytes, current, current_size);
	LLVMFuzzerTestOneInput(bytes, current_size);
	free(bytes);
}

static int add_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	if (!file || input_count == MAX_INPUTS)
		return -1;
	uint8_t *bytes = malloc(MAX_SIZE);
	size_t size = bytes ? fread(bytes, 1, MAX_SIZE, file) : 0;
	fclose(file);
	inputs[input_count++] = (struct input){bytes, size};
	return bytes ? 0 : -1;
}

static int compare_names(const struct dirent **left, const struct dirent **right)
{
	return strcmp((*left)->d_name, (*right)->d_name);
}

static int add_directory(const char *directory)
{
	struct dirent **entries;
	int count = scandir(directory, &entries, NULL, compare_names), result = count < 0 ? -1 : 0;
	for (int i = 0; i < count; i++) {
		char path[4096];
		snprintf(path, sizeof path, "%s/%s", directory, entries[i]->d_name);
		if (entries[i]->d_name[0] != '.' && add_file(path) != 0)
			result = -1;
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	return result;
}

// Puts bytes in place of `removed` bytes of the input.
static void replace(size_t at, size_t removed, const uint8_t *bytes, size_t size)
{
	static uint8_t copy[MAX_SIZE];
	removed = removed < current_size - at ? removed : current_size - at;
	size_t room = MAX_SIZE - (current_size - removed);
	size = size < room ? size : room;
	memcpy(copy, bytes, size);
	memmove(current + at + size, current + at + removed, current_size - at - removed);
	memcpy(current + at, copy, size);
	current_size += size - removed;
}

static void mutate(void)
{
	size_t at = below(current_size + 1), size = 1 + below(below(8) ? 8 : current_size + 1), from = below(current_size + 1);
	size_t left = current_size - from;
	uint8_t byte = (uint8_t)below(256);
	const char *token = TOKENS[below(sizeof TOKENS / sizeof *TOKENS)];
	const struct input *other = &inputs[below(input_count)];
	size_t other_from = below(other->size + 1), other_left = other->size - other_from;
	switch (below(8)) {
	case 0:
		if (at < current_size)
			current[at] ^= (uint8_t)(1 << below(8));
		break;
	case 1:
		replace(at, 1, &byte, 1);
		break;
	case 2:
		replace(at, size, &byte, 0);
		break;
	case 3:
		replace(at, below(2) * size, current + from, size < left ? size : left);
		break;
	case 4:
		replace(at, below(2) * size, other->bytes + other_from, size < other_left ? size : other_left);
		break;
	default:
		replace(at, below(3) ? 0 : size, (const uint8_t *)token, strlen(token));
	}
}

int main(int argc, char **argv)
{
	signal(SIGABRT, on_abort);
	__sanitizer_set_death_callback(keep_current);
	if (argc == 2) {
		if (add_file(argv[1]) != 0)
			return 2;
		memcpy(current, inputs[0].bytes, current_size = inputs[0].size);
		run();
		free(inputs[0].bytes);
		return 0;
	}
	if (argc < 3 || add_directory(argv[1]) != 0 || input_count == 0) {
		fprintf(stderr, "usage: fuzz-open-layer FILE | CORPUS RUNS [SEED]\n");
		return 2;
	}
	long runs = atol(argv[2]);
	state = 0x9e3779b97f4a7c15 ^ (argc > 3 ? strtoull(argv[3], NULL, 10) : 0);
	for (long i = 0; i < runs; i++) {
		const struct input *input = &inputs[(size_t)i % input_count];
		memcpy(current, input->bytes, current_size = input->size);
		// First the corpus as it is.
		for (size_t count = (size_t)i < input_count ? 0 : 1 + below(6); count > 0; count--)
			mutate();
		run();
	}
	printf("%ld runs of %zu inputs\n", runs, input_count);
	for (size_t i = 0; i < input_count; i++)
		free(inputs[i].bytes);
	return 0;
}
