// What fuzzing calls: opens the layer that the input describes, and looks whether what comes out can be used as it is.
//
// The first byte says how: bits 0-1 how the TOC is wrapped, bit 2 whether it is verified (it then has its digest, if it is not
// wrapped), bit 3 whether an image is made, bits 4-7 where the members end. The rest is the TOC.

#include "../sha256.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../layer/open-layer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define EROFS_BLOCK 4096
#define EROFS_SUPERBLOCK 1024

#define CHECK(condition)                                                                                                       \
	do {                                                                                                                   \
		if (!(condition)) {                                                                                            \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                              \
			abort();                                                                                               \
		}                                                                                                              \
	} while (0)

static void check_map(const struct layer_task *task, const struct opened_layer *layer)
{
	double device_end = 0;
	uint32_t *seen = calloc(layer->count + 1, sizeof *seen);
	CHECK(seen && layer->device_size >= EROFS_BLOCK);
	for (size_t i = 0; i < layer->count; i++) {
		CHECK(layer->device_offsets[i] >= device_end && layer->sizes[i] > 0 && layer->inner_offsets[i] >= 0);
		device_end = layer->device_offsets[i] + layer->sizes[i];
		CHECK(layer->streams[i] < layer->stream_count);
		CHECK(layer->inner_offsets[i] + layer->sizes[i] <= layer->stream_sizes[layer->streams[i]]);
	}
	CHECK(device_end <= layer->device_size && !layer->hashes == !task->hash);
	CHECK(layer->first_chunks[0] == 0 && layer->first_chunks[layer->stream_count] == layer->count);
	for (size_t i = 0; i < layer->stream_count; i++) {
		CHECK(layer->stream_offsets[i] < layer->stream_ends[i] && layer->stream_ends[i] <= (double)task->data_end);
		CHECK(i == 0 || layer->stream_offsets[i - 1] < layer->stream_offsets[i]);
		CHECK(layer->first_chunks[i] < layer->first_chunks[i + 1]);
		for (uint32_t at = layer->first_chunks[i]; at < layer->first_chunks[i + 1]; at++) {
			uint32_t chunk = layer->stream_chunks[at];
			CHECK(chunk < layer->count && layer->streams[chunk] == i && !seen[chunk]++);
		}
	}
	free(seen);
}

static void check_image(const struct layer_task *task, const struct opened_layer *layer)
{
	static const uint8_t magic[] = {0xe2, 0xe1, 0xf5, 0xe0};
	CHECK(!layer->image == !task->wants_image);
	if (!layer->image)
		return;
	CHECK(layer->image_size >= 2 * EROFS_BLOCK && layer->image_size % EROFS_BLOCK == 0);
	CHECK(memcmp(layer->image + EROFS_SUPERBLOCK, magic, sizeof magic) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint64_t ends[] = {0, 1, 100, 1000, 10000, 100000, 1 << 20, (uint64_t)1 << 40};
	if (size == 0)
		return 0;
	uint8_t hash[SHA256_DIGEST_LENGTH];
	struct opened_layer layer;
	struct layer_task task = {
		.where = (const uint8_t *)"the layer", .where_size = 9,
		.wrapping = (enum toc_wrapping)((data[0] & 3) % 3),
		.toc = data + 1, .toc_size = size - 1,
		.data_end = ends[data[0] >> 4 & 7],
		.wants_image = data[0] & 8,
	};
	if (data[0] & 4) {
		sha256_of(task.toc, task.toc_size, hash);
		task.hash = hash;
	}
	enum open_status status = open_layer(&task, &layer);
	CHECK((layer.message != NULL) == (status == OPEN_CORRUPT || status == OPEN_UNSUPPORTED));
	if (status == OPEN_DONE) {
		check_map(&task, &layer);
		check_image(&task, &layer);
	}
	opened_layer_free(&layer);
	return 0;
}
