// Where the bytes of pieces are. For the codec's own files.

#ifndef SPOOL_H
#define SPOOL_H

#include "codec.h"

// Pieces are read this much at a time where they need not be together in memory.
#define READ_SIZE (1 << 20)

extern const char NO_MEMORY[];
extern const char BAD_PIECE[];

// Each returns NULL, or why it failed, as a text that lives forever.

// Fills `out` from the file.
const char *read_spool(int fd, uint8_t *out, size_t size, uint64_t offset);

// Where a piece is in memory, or NULL with `*file_offset` set when it is in the file.
const char *locate(const struct spool *spool, const struct piece_lists *lists, size_t piece, const uint8_t **at,
		   size_t *size, uint64_t *file_offset);

#endif
