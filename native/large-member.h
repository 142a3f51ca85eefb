// Members that are too large to be held in memory for libdeflate, which takes whole buffers: the TOCs of layers with
// hundreds of thousands of files, and chunks of more than 64 MiB. They are compressed by zlib and libzstd as they are read.

#ifndef LARGE_MEMBER_H
#define LARGE_MEMBER_H

#include <stdbool.h>

#include "codec.h"

// Consecutive pieces that become one member.
struct large_member {
	enum member_kind kind;
	int level;
	const struct piece_lists *lists;
	const struct spool *spool;
	size_t first_piece;
	size_t pieces;
};

bool is_large_member(const struct piece_lists *lists, size_t first_piece, size_t pieces);

// Appends the member to `*out`, of which `*used` bytes of `*capacity` are taken; `*out` may move, also on failure. Returns
// NULL, or why it failed, as a text that lives forever.
const char *compress_large_member(const struct large_member *member, uint8_t **out, size_t *used, size_t *capacity,
				  uint32_t *size);

#endif
