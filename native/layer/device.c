#include "device.h"

#include <string.h>

#define MAX_DEVICE_SIZE ((uint64_t)1 << 40)
#define MAX_STREAM_SIZE (256 << 20)

static bool files_in_order(const void *context, uint32_t left, uint32_t right)
{
	const struct layer_file *files = context;
	const struct toc_entry *one = files[left].entry, *other = files[right].entry;
	return one->offset != other->offset ? one->offset < other->offset : one->inner_offset <= other->inner_offset;
}

struct device lay_out_device(struct opening *opening, struct layer_index *index)
{
	struct device device = {0};
	device.files = take(opening, index->count, sizeof *device.files);
	for (uint32_t i = 0; i < index->count; i++)
		if (index->files[i].chunk_count > 0)
			device.files[device.file_count++] = i;
	sort_indexes(opening, device.files, device.file_count, files_in_order, index->files);
	// A chunk has 128 MiB at most, so that all of them together are far below 2^64 bytes.
	for (size_t i = 0; i < device.file_count; i++) {
		struct layer_file *file = &index->files[device.files[i]];
		file->device_offset = device.size;
		device.size += ((uint64_t)file->entry->size + DEVICE_BLOCK_SIZE - 1) / DEVICE_BLOCK_SIZE * DEVICE_BLOCK_SIZE;
	}
	if (device.size > MAX_DEVICE_SIZE)
		fail(opening, OPEN_UNSUPPORTED, "Cannot mount a layer of %d bytes lazily: it is too large", (int64_t)device.size);
	if (device.size == 0)
		device.size = DEVICE_BLOCK_SIZE;
	return device;
}

// Gives the streams that have chunks their numbers, in the order of the blob; NONE for those that have none left.
static uint32_t *number_streams(struct opening *opening, const struct layer_index *index, const uint32_t *places)
{
	struct opened_layer *layer = opening->layer;
	uint32_t *numbers = take(opening, index->offset_count, sizeof *numbers);
	for (size_t i = 0; i < layer->count; i++)
		numbers[places[i]] = 1;
	for (size_t i = 0; i < index->offset_count; i++)
		layer->stream_count += numbers[i];
	layer->stream_offsets = take_result(opening, layer->stream_count, sizeof(double));
	layer->stream_ends = take_result(opening, layer->stream_count, sizeof(double));
	layer->stream_sizes = take_result(opening, layer->stream_count, sizeof(double));
	layer->first_chunks = take_result(opening, layer->stream_count + 1, sizeof(uint32_t));
	for (size_t i = 0, next = 0; i < index->offset_count; i++) {
		if (!numbers[i]) {
			numbers[i] = NONE;
			continue;
		}
		layer->stream_offsets[next] = (double)index->offsets[i];
		layer->stream_ends[next] = (double)index->offsets[i + 1];
		numbers[i] = (uint32_t)next++;
	}
	return numbers;
}

// The value of a hex digit, in lower case.
static inline uint8_t hex_value(uint8_t digit)
{
	return (uint8_t)((digit & 15) + 9 * (digit >> 6));
}

static void put_hash(struct opening *opening, const struct layer_file *file, const struct toc_entry *chunk, uint8_t *hash)
{
	if (!chunk->chunk_digest.at)
		fail(opening, OPEN_CORRUPT, "Cannot verify %w: %q has a chunk without a digest", &file->path);
	const uint8_t *digits = chunk->chunk_digest.at + sizeof "sha256:" - 1;
	for (size_t i = 0; i < 32; i++)
		hash[i] = (uint8_t)(hex_value(digits[2 * i]) << 4 | hex_value(digits[2 * i + 1]));
}

// Where the streams end at the latest, and which chunks each has.
static void finish_streams(struct opening *opening)
{
	struct opened_layer *layer = opening->layer;
	for (size_t i = 0; i < layer->stream_count; i++) {
		double size = layer->stream_sizes[i];
		// Flushing and framing can make a stream larger than its contents; by more than this, no encoder does.
		double end = layer->stream_offsets[i] + (size * 2 + (64 << 10));
		if (end < layer->stream_ends[i])
			layer->stream_ends[i] = end;
		if (size > MAX_STREAM_SIZE)
			fail(opening, OPEN_UNSUPPORTED, "Cannot read %w lazily: a stream of it has %f bytes", size);
		layer->first_chunks[i + 1] += layer->first_chunks[i];
	}
	uint32_t *next = take(opening, layer->stream_count, sizeof *next);
	memcpy(next, layer->first_chunks, layer->stream_count * sizeof *next);
	for (uint32_t i = 0; i < layer->count; i++)
		layer->stream_chunks[next[layer->streams[i]]++] = i;
	drop(opening, next);
}

void map_chunks(struct opening *opening, const struct layer_index *index, const struct device *device)
{
	struct opened_layer *layer = opening->layer;
	for (size_t i = 0; i < device->file_count; i++)
		layer->count += index->files[device->files[i]].chunk_count;
	layer->device_size = (double)device->size;
	layer->device_offsets = take_result(opening, layer->count, sizeof(double));
	layer->sizes = take_result(opening, layer->count, sizeof(double));
	layer->streams = take_result(opening, layer->count, sizeof(uint32_t));
	layer->inner_offsets = take_result(opening, layer->count, sizeof(double));
	layer->stream_chunks = take_result(opening, layer->count, sizeof(uint32_t));
	if (opening->task->hash)
		layer->hashes = take_result(opening, layer->count, 32);
	uint32_t *places = layer->streams;
	size_t hint = 0;
	for (size_t i = 0, next = 0; i < device->file_count; i++) {
		const struct layer_file *file = &index->files[device->files[i]];
		for (uint32_t part = 0; part < file->chunk_count; part++, next++) {
			hint = stream_at(index, (uint64_t)file->entry[part].offset, hint);
			places[next] = (uint32_t)hint;
		}
	}
	uint32_t *numbers = number_streams(opening, index, places);
	for (size_t i = 0, next = 0; i < device->file_count; i++) {
		const struct layer_file *file = &index->files[device->files[i]];
		for (uint32_t part = 0; part < file->chunk_count; part++, next++) {
			const struct toc_entry *chunk = &file->entry[part];
			uint32_t stream = numbers[places[next]];
			double end = (double)chunk->inner_offset + (double)chunk->chunk_size;
			layer->device_offsets[next] = (double)(file->device_offset + (uint64_t)chunk->chunk_offset);
			layer->sizes[next] = (double)chunk->chunk_size;
			layer->streams[next] = stream;
			layer->inner_offsets[next] = (double)chunk->inner_offset;
			layer->first_chunks[stream + 1]++;
			if (end > layer->stream_sizes[stream])
				layer->stream_sizes[stream] = end;
			if (layer->hashes)
				put_hash(opening, file, chunk, layer->hashes + 32 * next);
		}
		check_abort(opening);
	}
	drop(opening, numbers);
	finish_streams(opening);
}
