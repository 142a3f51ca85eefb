// Bulk compression and hashing, without a word of JavaScript: what the thread pool runs.

#ifndef CODEC_H
#define CODEC_H

#include <stddef.h>
#include <stdint.h>

// The decompressed layer: memory, or where that is NULL a file descriptor.
struct spool {
	const uint8_t *memory;
	size_t memory_size;
	int fd;
};

// Many byte strings, each the concatenation of `counts[i]` pieces. A negative offset -1 - n is byte n of `literals`.
struct piece_lists {
	const uint8_t *literals;
	size_t literals_size;
	const double *offsets;
	const double *sizes;
	size_t pieces;
	const uint32_t *counts;
	size_t lists;
};

enum member_kind { MEMBER_GZIP, MEMBER_ZSTD };

struct sha256_stream;

// Each returns NULL, or why it failed, as a text that lives forever.

// Compresses every list to a member. On success `*bytes` (to be freed) holds them, `sizes[i]` their sizes.
const char *compress_members(enum member_kind kind, int level, const struct spool *spool,
			     const struct piece_lists *lists, uint8_t **bytes, size_t *size, uint32_t *sizes);

// SHA-256 of every list into `hashes`, 32 bytes each.
const char *hash_pieces(const struct spool *spool, const struct piece_lists *lists, uint8_t *hashes);

// CRC-64/GO-ISO of every list into `checksums`, 8 bytes each, big-endian.
const char *checksum_pieces(const struct spool *spool, const struct piece_lists *lists, uint8_t *checksums);

// All bytes of the lists, one after the other, into `out`, which must be as large as their pieces together.
const char *read_pieces(const struct spool *spool, const struct piece_lists *lists, uint8_t *out, size_t out_size);

// Decompresses exactly one member into exactly `out_size` bytes.
const char *inflate_member(enum member_kind kind, const uint8_t *bytes, size_t size, uint8_t *out, size_t out_size);

// Streams of a lazily read layer, and the chunks in them. Numbers are bytes, given as doubles.
struct unpacking {
	enum member_kind kind;
	const uint8_t *bytes;
	size_t size;
	// Four for each stream: where in `bytes` it starts and ends, how much of its output is wanted, how many chunks it has.
	const double *streams;
	size_t stream_count;
	// Three for each chunk, in the order of the streams: where in the output it starts, its size, where in the file it goes.
	const double *chunks;
	size_t chunk_count;
	// SHA-256 of each chunk; NULL when there are none to check.
	const uint8_t *hashes;
	int fd;
};

// Decompresses streams, checks their chunks and writes them to the file. `unpacked[i]` says whether all of stream i has
// been written; what is out of the ordinary, damaged, or cannot be written is left to the caller.
const char *unpack_streams(const struct unpacking *unpacking, uint8_t *unpacked);

struct sha256_stream *sha256_stream_new(void);
void sha256_stream_free(struct sha256_stream *stream);
void sha256_stream_update(struct sha256_stream *stream, const uint8_t *bytes, size_t size);
// Updates with all lists, one after the other.
const char *sha256_stream_update_pieces(struct sha256_stream *stream, const struct spool *spool,
					const struct piece_lists *lists);
void sha256_stream_final(struct sha256_stream *stream, uint8_t *hash);

#endif
