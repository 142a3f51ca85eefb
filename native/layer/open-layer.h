// Opens a lazily readable layer: from the bytes of its TOC to the EROFS image of its metadata and the map of its chunks.
// What src/lib/layer/parse-layer.ts does in JavaScript, which is the oracle: same bytes, same errors.

#ifndef OPEN_LAYER_H
#define OPEN_LAYER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum toc_wrapping {
	TOC_JSON, // as it is
	TOC_TAR_GZIP, // the only file of a tar in one gzip member
	TOC_ZSTD, // one zstd frame
};

// A layer to open. Everything belongs to the caller and must live until the call returns.
struct layer_task {
	// For messages, UTF-8.
	const uint8_t *where;
	size_t where_size;
	enum toc_wrapping wrapping;
	const uint8_t *toc;
	size_t toc_size;
	// What the TOC's SHA-256 must be, and then each chunk must have a digest; NULL: nothing is verified.
	const uint8_t *hash;
	// Where in the blob the members of files end.
	uint64_t data_end;
	bool wants_image;
	// Set by another thread when nobody wants the result any more; may be NULL.
	const atomic_uchar *aborted;
};

enum open_status {
	OPEN_DONE,
	// With a message. The names are those of src/lib/errors/coded-error.ts.
	OPEN_CORRUPT,
	OPEN_UNSUPPORTED,
	OPEN_ABORTED,
	// The TOC is wrapped in a way that takes more than one call to unwrap, or is damaged: unwrap it otherwise.
	OPEN_WRAPPED_OTHERWISE,
	OPEN_NO_MEMORY,
};

// What is known of a layer then; free it with opened_layer_free. The fields are those of ChunkMap (chunk-map.ts).
struct opened_layer {
	// Why it could not be opened, UTF-8; NULL unless the status has a message.
	char *message;
	size_t message_size;

	size_t count;
	double device_size;
	double *device_offsets;
	double *sizes;
	uint32_t *streams;
	double *inner_offsets;
	uint8_t *hashes; // NULL when nothing is verified
	size_t stream_count;
	double *stream_offsets;
	double *stream_ends;
	double *stream_sizes;
	uint32_t *first_chunks;
	uint32_t *stream_chunks;

	// Bytes to prefetch; negative when the layer does not say.
	double prefetch_size;
	uint8_t *image; // NULL unless it was wanted
	size_t image_size;
};

enum open_status open_layer(const struct layer_task *task, struct opened_layer *layer);

void opened_layer_free(struct opened_layer *layer);

#endif
