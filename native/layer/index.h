// A TOC made sense of: which files a layer has and where their chunks are (indexToc of src/lib/estargz/index-toc.ts).

#ifndef INDEX_H
#define INDEX_H

#include "toc.h"

// A file of the layer: an entry, and those of its further chunks, which follow it. Of chunks, what the index has made out
// replaces what the TOC says: `chunk_size`, and `chunk_digest`, which is a digest or NULL.
struct layer_file {
	struct toc_entry *entry;
	// 0 unless it is a regular file with contents.
	uint32_t chunk_count;
	// Clean; empty for the root.
	struct text path;
	// Where on the device its contents start (device.c).
	uint64_t device_offset;
};

// All files in the order of the layer, those that a later one replaces included; landmarks and the TOC left out.
struct layer_index {
	struct layer_file *files;
	size_t count;
	// Where streams start, ascending; and as one more, where the last one ends.
	uint64_t *offsets;
	size_t offset_count;
	// Bytes to prefetch; negative when the layer does not say.
	double prefetch_size;
};

struct layer_index index_toc(struct opening *opening, const struct toc *toc);

// The index of a stream by where it starts, which must be known; `hint` is one that is probably near.
size_t stream_at(const struct layer_index *index, uint64_t offset, size_t hint);

#endif
