// The device of a layer, and the map of its chunks (layOutDevice of src/lib/layer/toc-tree.ts, mapChunks of chunk-map.ts).

#ifndef DEVICE_H
#define DEVICE_H

#include "index.h"

#define DEVICE_BLOCK_SIZE 4096

// The files with contents in the order of the device.
struct device {
	uint32_t *files;
	size_t file_count;
	// Bytes; a multiple of the block size, and never 0.
	uint64_t size;
};

// Gives the contents of each file their place.
struct device lay_out_device(struct opening *opening, struct layer_index *index);

// Fills the map of the layer that is being opened.
void map_chunks(struct opening *opening, const struct layer_index *index, const struct device *device);

#endif
