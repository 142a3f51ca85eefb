#include "open-layer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "device.h"
#include "../sha256.h"
#include "erofs.h"
#include "unwrap.h"

static void check_hash(struct opening *opening, struct text json)
{
	uint8_t hash[SHA256_DIGEST_LENGTH];
	char found[65], wanted[65];
	if (!opening->task->hash)
		return;
	if (memcmp(sha256_of(json.at, json.size, hash), opening->task->hash, 32) == 0)
		return;
	for (int i = 0; i < 32; i++) {
		static const char digits[] = "0123456789abcdef";
		found[2 * i] = digits[hash[i] >> 4];
		found[2 * i + 1] = digits[hash[i] & 15];
		wanted[2 * i] = digits[opening->task->hash[i] >> 4];
		wanted[2 * i + 1] = digits[opening->task->hash[i] & 15];
	}
	found[64] = wanted[64] = 0;
	fail(opening, OPEN_CORRUPT, "Cannot use the TOC of %w: its digest is sha256:%s, not sha256:%s", found, wanted);
}

static void open_now(struct opening *opening)
{
	struct text json = unwrap_toc(opening);
	check_hash(opening, json);
	struct toc toc = parse_toc(opening, json);
	struct layer_index index = index_toc(opening, &toc);
	opening->layer->prefetch_size = index.prefetch_size;
	struct device device = lay_out_device(opening, &index);
	map_chunks(opening, &index, &device);
	if (!opening->task->wants_image)
		return;
	struct tree tree = make_tree(opening, &index);
	encode_erofs(opening, &tree, device.size);
}

enum open_status open_layer(const struct layer_task *task, struct opened_layer *layer)
{
	struct opening opening = {.task = task, .layer = layer, .status = OPEN_DONE};
	memset(layer, 0, sizeof *layer);
	// Early after boot there may be no random numbers yet; then others must do.
	if (getrandom(opening.key, sizeof opening.key, GRND_NONBLOCK) != sizeof opening.key) {
		struct timespec now;
		clock_gettime(CLOCK_MONOTONIC, &now);
		opening.key[0] = (uint64_t)now.tv_nsec * 0x9e3779b97f4a7c15;
		opening.key[1] = (uint64_t)(uintptr_t)&opening;
	}
	if (setjmp(opening.failed) == 0)
		open_now(&opening);
	drop_all(&opening);
	if (opening.status != OPEN_DONE) {
		struct opened_layer failed = {.message = layer->message, .message_size = layer->message_size};
		layer->message = NULL;
		opened_layer_free(layer);
		*layer = failed;
	}
	return opening.status;
}

void opened_layer_free(struct opened_layer *layer)
{
	void *const parts[] = {
		layer->message, layer->device_offsets, layer->sizes, layer->streams, layer->inner_offsets, layer->hashes,
		layer->stream_offsets, layer->stream_ends, layer->stream_sizes, layer->first_chunks, layer->stream_chunks,
		layer->image,
	};
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		free(parts[i]);
	memset(layer, 0, sizeof *layer);
}
