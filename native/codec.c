// Bulk compression and hashing with libdeflate, libzstd and libcrypto. State that is costly to make is kept per thread:
// the threads are libuv's, and live as long as the process.

#include "codec.h"
#include "crc64.h"
#include "large-member.h"
#include "sha256.h"
#include "spool.h"

#include <errno.h>
#include <libdeflate.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>
#include <zstd_errors.h>

#define GZIP_HEADER_SIZE 10
#define GZIP_TRAILER_SIZE 8
#define MAX_GZIP_LEVEL 12


static __thread struct libdeflate_compressor *deflaters[MAX_GZIP_LEVEL + 1];
static __thread struct libdeflate_decompressor *inflater;
static __thread ZSTD_CCtx *zstd_compressor;
static __thread ZSTD_DCtx *zstd_decompressor;
static __thread uint8_t *scratch;
static __thread size_t scratch_size;

// Memory of this thread that the next call reuses; NULL when there is none.
static uint8_t *scratch_of(size_t size)
{
	if (size > scratch_size) {
		free(scratch);
		scratch = malloc(size);
		scratch_size = scratch ? size : 0;
	}
	return scratch;
}

// A single huge list must not pin its memory to the thread.
static void scratch_trim(void)
{
	if (scratch_size > 16u << 20) {
		free(scratch);
		scratch = NULL;
		scratch_size = 0;
	}
}

// The bytes of a list: in place when it is one piece of memory, else gathered into this thread's scratch memory.
static const char *gather(const struct spool *spool, const struct piece_lists *lists, size_t first, size_t count,
			  const uint8_t **bytes, size_t *size)
{
	const uint8_t *at;
	size_t piece_size, total = 0;
	uint64_t offset;
	const char *error;
	for (size_t i = 0; i < count; i++) {
		if ((error = locate(spool, lists, first + i, &at, &piece_size, &offset)))
			return error;
		if (piece_size > SIZE_MAX / 2 - total)
			return BAD_PIECE;
		total += piece_size;
		if (count == 1 && at) {
			*bytes = at;
			*size = total;
			return NULL;
		}
	}
	uint8_t *buffer = scratch_of(total ? total : 1);
	if (!buffer)
		return NO_MEMORY;
	*bytes = buffer;
	*size = total;
	for (size_t i = 0; i < count; i++) {
		if ((error = locate(spool, lists, first + i, &at, &piece_size, &offset)))
			return error;
		if (at)
			memcpy(buffer, at, piece_size);
		else if ((error = read_spool(spool->fd, buffer, piece_size, offset)))
			return error;
		buffer += piece_size;
	}
	return NULL;
}

static const char *check_counts(const struct piece_lists *lists)
{
	size_t pieces = 0;
	for (size_t i = 0; i < lists->lists; i++)
		pieces += lists->counts[i];
	return pieces == lists->pieces ? NULL : "the lists do not have as many pieces as were given";
}

static void put_le32(uint8_t *out, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		out[i] = (uint8_t)(value >> (8 * i));
}

// RFC 1952: no name, MTIME 0, XFL 0, OS 255 ("unknown"), so that the bytes depend on nothing but the input.
static size_t gzip_member(struct libdeflate_compressor *deflater, const uint8_t *in, size_t in_size, uint8_t *out,
			  size_t out_size)
{
	static const uint8_t header[GZIP_HEADER_SIZE] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff};
	memcpy(out, header, GZIP_HEADER_SIZE);
	size_t room = out_size - GZIP_HEADER_SIZE - GZIP_TRAILER_SIZE;
	size_t n = libdeflate_deflate_compress(deflater, in, in_size, out + GZIP_HEADER_SIZE, room);
	if (n == 0)
		return 0;
	uint8_t *trailer = out + GZIP_HEADER_SIZE + n;
	put_le32(trailer, libdeflate_crc32(0, in, in_size));
	put_le32(trailer + 4, (uint32_t)in_size);
	return GZIP_HEADER_SIZE + n + GZIP_TRAILER_SIZE;
}

static const char *prepare_compressor(enum member_kind kind, int level)
{
	if (kind == MEMBER_GZIP) {
		if (level < 0 || level > MAX_GZIP_LEVEL)
			return "the gzip level is not from 0 to 12";
		if (!deflaters[level] && !(deflaters[level] = libdeflate_alloc_compressor(level)))
			return NO_MEMORY;
		return NULL;
	}
	if (level < 1 || level > ZSTD_maxCLevel())
		return "the zstd level is not from 1 to 22";
	if (!zstd_compressor && !(zstd_compressor = ZSTD_createCCtx()))
		return NO_MEMORY;
	if (ZSTD_isError(ZSTD_CCtx_setParameter(zstd_compressor, ZSTD_c_compressionLevel, level)))
		return "the zstd level was refused";
	return NULL;
}

static size_t member_bound(enum member_kind kind, int level, size_t size)
{
	if (kind == MEMBER_ZSTD)
		return ZSTD_compressBound(size);
	return GZIP_HEADER_SIZE + libdeflate_deflate_compress_bound(deflaters[level], size) + GZIP_TRAILER_SIZE;
}

static size_t compress_member(enum member_kind kind, int level, const uint8_t *in, size_t in_size, uint8_t *out,
			      size_t out_size)
{
	if (kind == MEMBER_GZIP)
		return gzip_member(deflaters[level], in, in_size, out, out_size);
	size_t n = ZSTD_compress2(zstd_compressor, out, out_size, in, in_size);
	return ZSTD_isError(n) ? 0 : n;
}

const char *compress_members(enum member_kind kind, int level, const struct spool *spool,
			     const struct piece_lists *lists, uint8_t **bytes, size_t *size, uint32_t *sizes)
{
	const char *error = check_counts(lists);
	if (error || (error = prepare_compressor(kind, level)))
		return error;
	uint8_t *out = NULL;
	size_t used = 0, capacity = 0;
	for (size_t i = 0, first = 0; i < lists->lists; first += lists->counts[i++]) {
		const uint8_t *in;
		size_t in_size;
		if (is_large_member(lists, first, lists->counts[i])) {
			struct large_member member = {kind, level, lists, spool, first, lists->counts[i]};
			if ((error = compress_large_member(&member, &out, &used, &capacity, &sizes[i])))
				break;
			continue;
		}
		if ((error = gather(spool, lists, first, lists->counts[i], &in, &in_size)))
			break;
		size_t bound = member_bound(kind, level, in_size);
		if (capacity - used < bound) {
			capacity = used + bound + capacity / 2;
			uint8_t *grown = realloc(out, capacity);
			if (!grown) {
				error = NO_MEMORY;
				break;
			}
			out = grown;
		}
		size_t n = compress_member(kind, level, in, in_size, out + used, bound);
		if (n == 0 || n > UINT32_MAX) {
			error = "a member cannot be compressed";
			break;
		}
		sizes[i] = (uint32_t)n;
		used += n;
	}
	scratch_trim();
	if (error) {
		free(out);
		return error;
	}
	uint8_t *fitted = realloc(out, used ? used : 1);
	*bytes = fitted ? fitted : out;
	*size = used;
	return *bytes ? NULL : NO_MEMORY;
}

static const char *hash_list(SHA256_CTX *context, const struct spool *spool, const struct piece_lists *lists,
			     size_t first, size_t count)
{
	const uint8_t *at;
	size_t size;
	uint64_t offset;
	for (size_t i = 0; i < count; i++) {
		const char *error = locate(spool, lists, first + i, &at, &size, &offset);
		if (error)
			return error;
		if (at) {
			SHA256_Update(context, at, size);
			continue;
		}
		uint8_t *buffer = scratch_of(size < READ_SIZE ? size + 1 : READ_SIZE);
		if (!buffer)
			return NO_MEMORY;
		while (size > 0) {
			size_t part = size < READ_SIZE ? size : READ_SIZE;
			if ((error = read_spool(spool->fd, buffer, part, offset)))
				return error;
			SHA256_Update(context, buffer, part);
			offset += part;
			size -= part;
		}
	}
	return NULL;
}

const char *hash_pieces(const struct spool *spool, const struct piece_lists *lists, uint8_t *hashes)
{
	const char *error = check_counts(lists);
	if (error)
		return error;
	for (size_t i = 0, first = 0; i < lists->lists; first += lists->counts[i++]) {
		SHA256_CTX context;
		SHA256_Init(&context);
		if ((error = hash_list(&context, spool, lists, first, lists->counts[i])))
			return error;
		SHA256_Final(hashes + 32 * i, &context);
	}
	return NULL;
}

static const char *checksum_list(const struct spool *spool, const struct piece_lists *lists, size_t first, size_t count,
				 uint64_t *crc)
{
	const uint8_t *at;
	size_t size;
	uint64_t offset;
	*crc = 0;
	for (size_t i = 0; i < count; i++) {
		const char *error = locate(spool, lists, first + i, &at, &size, &offset);
		if (error)
			return error;
		if (at) {
			*crc = crc64_update(*crc, at, size);
			continue;
		}
		uint8_t *buffer = scratch_of(size < READ_SIZE ? size + 1 : READ_SIZE);
		if (!buffer)
			return NO_MEMORY;
		while (size > 0) {
			size_t part = size < READ_SIZE ? size : READ_SIZE;
			if ((error = read_spool(spool->fd, buffer, part, offset)))
				return error;
			*crc = crc64_update(*crc, buffer, part);
			offset += part;
			size -= part;
		}
	}
	return NULL;
}

const char *checksum_pieces(const struct spool *spool, const struct piece_lists *lists, uint8_t *checksums)
{
	const char *error = check_counts(lists);
	if (error)
		return error;
	for (size_t i = 0, first = 0; i < lists->lists; first += lists->counts[i++]) {
		uint64_t crc;
		if ((error = checksum_list(spool, lists, first, lists->counts[i], &crc)))
			return error;
		for (int byte = 0; byte < 8; byte++)
			checksums[8 * i + byte] = (uint8_t)(crc >> (56 - 8 * byte));
	}
	return NULL;
}

const char *read_pieces(const struct spool *spool, const struct piece_lists *lists, uint8_t *out, size_t out_size)
{
	for (size_t i = 0; i < lists->pieces; i++) {
		const uint8_t *at;
		size_t size;
		uint64_t offset;
		const char *error = locate(spool, lists, i, &at, &size, &offset);
		if (error)
			return error;
		if (size > out_size)
			return BAD_PIECE;
		if (at)
			memcpy(out, at, size);
		else if ((error = read_spool(spool->fd, out, size, offset)))
			return error;
		out += size;
		out_size -= size;
	}
	return out_size == 0 ? NULL : BAD_PIECE;
}

static const char *inflate_gzip(const uint8_t *bytes, size_t size, uint8_t *out, size_t out_size)
{
	if (!inflater && !(inflater = libdeflate_alloc_decompressor()))
		return NO_MEMORY;
	size_t consumed, produced;
	switch (libdeflate_gzip_decompress_ex(inflater, bytes, size, out, out_size, &consumed, &produced)) {
	case LIBDEFLATE_SUCCESS:
		break;
	case LIBDEFLATE_INSUFFICIENT_SPACE:
		return "it is longer than it should be";
	default:
		return "it is damaged or cut short";
	}
	if (produced != out_size)
		return "it is shorter than it should be";
	return consumed == size ? NULL : "something follows it";
}

static const char *inflate_zstd(const uint8_t *bytes, size_t size, uint8_t *out, size_t out_size)
{
	if (!zstd_decompressor && !(zstd_decompressor = ZSTD_createDCtx()))
		return NO_MEMORY;
	size_t frame = ZSTD_findFrameCompressedSize(bytes, size);
	if (ZSTD_isError(frame))
		return "it is damaged or cut short";
	if (frame != size)
		return "something follows it";
	size_t n = ZSTD_decompressDCtx(zstd_decompressor, out, out_size, bytes, size);
	if (ZSTD_isError(n))
		return ZSTD_getErrorCode(n) == ZSTD_error_dstSize_tooSmall ? "it is longer than it should be" : "it is damaged or cut short";
	return n == out_size ? NULL : "it is shorter than it should be";
}

const char *inflate_member(enum member_kind kind, const uint8_t *bytes, size_t size, uint8_t *out, size_t out_size)
{
	return kind == MEMBER_GZIP ? inflate_gzip(bytes, size, out, out_size) : inflate_zstd(bytes, size, out, out_size);
}

// A member says how much it decompresses to. Behind a chunk there are the headers of what comes next, but not more.
static bool output_size(const struct unpacking *unpacking, const uint8_t *in, size_t in_size, size_t wanted, size_t *size)
{
	static const size_t max_excess = 1 << 20;
	if (unpacking->kind == MEMBER_GZIP) {
		if (in_size < GZIP_HEADER_SIZE + GZIP_TRAILER_SIZE)
			return false;
		const uint8_t *end = in + in_size;
		*size = (size_t)end[-4] | (size_t)end[-3] << 8 | (size_t)end[-2] << 16 | (size_t)end[-1] << 24;
	} else {
		unsigned long long told = ZSTD_getFrameContentSize(in, in_size);
		if (told == ZSTD_CONTENTSIZE_UNKNOWN || told == ZSTD_CONTENTSIZE_ERROR)
			return false;
		*size = (size_t)told;
	}
	return *size >= wanted && *size <= wanted + max_excess;
}

// A number of JavaScript's as a size, if it can be one.
static bool size_of(double number, size_t *size)
{
	if (!(number >= 0 && number <= 9007199254740991.0))
		return false;
	*size = (size_t)number;
	return true;
}

static bool write_fully(int fd, const uint8_t *bytes, size_t size, off_t offset)
{
	while (size > 0) {
		ssize_t n = pwrite(fd, bytes, size, offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		bytes += n;
		size -= (size_t)n;
		offset += n;
	}
	return true;
}

static bool unpack_stream(const struct unpacking *unpacking, size_t stream, size_t first_chunk)
{
	const double *place = unpacking->streams + 4 * stream;
	size_t from, to, wanted, count, size, start, length, offset;
	if (!size_of(place[0], &from) || !size_of(place[1], &to) || !size_of(place[2], &wanted) || !size_of(place[3], &count) ||
	    from > to || to > unpacking->size || !output_size(unpacking, unpacking->bytes + from, to - from, wanted, &size))
		return false;
	uint8_t *output = scratch_of(size + 1);
	if (!output || inflate_member(unpacking->kind, unpacking->bytes + from, to - from, output, size))
		return false;
	for (size_t i = first_chunk; i < first_chunk + count; i++) {
		const double *chunk = unpacking->chunks + 3 * i;
		uint8_t hash[SHA256_DIGEST_LENGTH];
		if (!size_of(chunk[0], &start) || !size_of(chunk[1], &length) || !size_of(chunk[2], &offset) || start > size ||
		    length > size - start)
			return false;
		if (unpacking->hashes && memcmp(sha256_of(output + start, length, hash), unpacking->hashes + 32 * i, sizeof hash) != 0)
			return false;
	}
	for (size_t i = first_chunk; i < first_chunk + count; i++) {
		const double *chunk = unpacking->chunks + 3 * i;
		if (!write_fully(unpacking->fd, output + (size_t)chunk[0], (size_t)chunk[1], (off_t)chunk[2]))
			return false;
	}
	return true;
}

const char *unpack_streams(const struct unpacking *unpacking, uint8_t *unpacked)
{
	size_t first_chunk = 0;
	for (size_t stream = 0; stream < unpacking->stream_count; stream++) {
		double count = unpacking->streams[4 * stream + 3];
		if (!(count >= 0 && count <= (double)(unpacking->chunk_count - first_chunk)))
			return BAD_PIECE;
		unpacked[stream] = unpack_stream(unpacking, stream, first_chunk);
		first_chunk += (size_t)count;
	}
	scratch_trim();
	return NULL;
}

struct sha256_stream {
	SHA256_CTX context;
};

struct sha256_stream *sha256_stream_new(void)
{
	struct sha256_stream *stream = malloc(sizeof *stream);
	if (stream)
		SHA256_Init(&stream->context);
	return stream;
}

void sha256_stream_free(struct sha256_stream *stream)
{
	free(stream);
}

void sha256_stream_update(struct sha256_stream *stream, const uint8_t *bytes, size_t size)
{
	SHA256_Update(&stream->context, bytes, size);
}

const char *sha256_stream_update_pieces(struct sha256_stream *stream, const struct spool *spool,
					const struct piece_lists *lists)
{
	const char *error = check_counts(lists);
	return error ? error : hash_list(&stream->context, spool, lists, 0, lists->pieces);
}

void sha256_stream_final(struct sha256_stream *stream, uint8_t *hash)
{
	SHA256_Final(hash, &stream->context);
}
