#include "large-member.h"

#include <stdlib.h>
#define ZLIB_CONST
#include <zlib.h>
#include <zstd.h>

#include "spool.h"

// Decompressed bytes from which on a member is large: those that `--estargz-min-chunk-size` joins are no larger.
#define LARGE_SIZE (64 << 20)
// zlib's highest level; libdeflate has three more.
#define MAX_ZLIB_LEVEL 9
// Least room for output of each step.
#define STEP_ROOM (1 << 20)

// A member under way, and where its bytes go.
struct growing {
	const struct large_member *member;
	uint8_t **out;
	size_t *used;
	size_t *capacity;
	z_stream deflater;
	ZSTD_CCtx *zstd;
};

bool is_large_member(const struct piece_lists *lists, size_t first_piece, size_t pieces)
{
	double size = 0;
	for (size_t i = 0; i < pieces; i++)
		size += lists->sizes[first_piece + i];
	return size > LARGE_SIZE;
}

static bool make_room(struct growing *growing)
{
	if (*growing->capacity - *growing->used >= STEP_ROOM)
		return true;
	size_t capacity = *growing->capacity + *growing->capacity / 4 + STEP_ROOM;
	uint8_t *grown = realloc(*growing->out, capacity);
	if (!grown)
		return false;
	*growing->out = grown;
	*growing->capacity = capacity;
	return true;
}

static const char FAILED[] = "a member cannot be compressed";

// Compresses all of the bytes; with `last`, ends the member.
static const char *deflate_part(struct growing *growing, const uint8_t *bytes, size_t size, bool last)
{
	z_stream *stream = &growing->deflater;
	int status;
	stream->next_in = bytes;
	stream->avail_in = (uInt)size;
	do {
		if (!make_room(growing))
			return NO_MEMORY;
		stream->next_out = *growing->out + *growing->used;
		stream->avail_out = STEP_ROOM;
		status = deflate(stream, last ? Z_FINISH : Z_NO_FLUSH);
		if (status == Z_STREAM_ERROR)
			return FAILED;
		*growing->used += STEP_ROOM - stream->avail_out;
	} while (last ? status != Z_STREAM_END : stream->avail_in > 0);
	return NULL;
}

static const char *zstd_part(struct growing *growing, const uint8_t *bytes, size_t size, bool last)
{
	ZSTD_inBuffer in = {bytes, size, 0};
	size_t left;
	do {
		if (!make_room(growing))
			return NO_MEMORY;
		ZSTD_outBuffer out = {*growing->out + *growing->used, STEP_ROOM, 0};
		left = ZSTD_compressStream2(growing->zstd, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
		if (ZSTD_isError(left))
			return FAILED;
		*growing->used += out.pos;
	} while (last ? left > 0 : in.pos < in.size);
	return NULL;
}

static const char *add_part(struct growing *growing, const uint8_t *bytes, size_t size, bool last)
{
	return growing->member->kind == MEMBER_GZIP ? deflate_part(growing, bytes, size, last)
						    : zstd_part(growing, bytes, size, last);
}

static const char *add_piece(struct growing *growing, size_t piece, uint8_t *buffer)
{
	const struct large_member *member = growing->member;
	const uint8_t *at;
	size_t size;
	uint64_t offset;
	const char *error = locate(member->spool, member->lists, piece, &at, &size, &offset);
	while (!error && size > 0) {
		size_t part = size < READ_SIZE ? size : READ_SIZE;
		if (!at)
			error = read_spool(member->spool->fd, buffer, part, offset);
		if (!error)
			error = add_part(growing, at ? at : buffer, part, false);
		at = at ? at + part : NULL;
		offset += part;
		size -= part;
	}
	return error;
}

static const char *add_all(struct growing *growing)
{
	const struct large_member *member = growing->member;
	uint8_t *buffer = malloc(READ_SIZE);
	const char *error = buffer ? NULL : NO_MEMORY;
	for (size_t i = 0; !error && i < member->pieces; i++)
		error = add_piece(growing, member->first_piece + i, buffer);
	free(buffer);
	return error ? error : add_part(growing, NULL, 0, true);
}

static const char *deflate_member(struct growing *growing)
{
	// RFC 1952: no name, MTIME 0, XFL 0, OS 255 ("unknown"), as in the members that libdeflate makes.
	gz_header header = {.os = 255};
	int level = growing->member->level < MAX_ZLIB_LEVEL ? growing->member->level : MAX_ZLIB_LEVEL;
	if (deflateInit2(&growing->deflater, level, Z_DEFLATED, 16 + MAX_WBITS, MAX_MEM_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK)
		return NO_MEMORY;
	deflateSetHeader(&growing->deflater, &header);
	size_t start = *growing->used;
	const char *error = add_all(growing);
	deflateEnd(&growing->deflater);
	// zlib notes the level in XFL.
	if (!error)
		(*growing->out)[start + 8] = 0;
	return error;
}

static const char *zstd_member(struct growing *growing)
{
	const struct large_member *member = growing->member;
	unsigned long long size = 0;
	for (size_t i = 0; i < member->pieces; i++)
		size += (unsigned long long)member->lists->sizes[member->first_piece + i];
	if (!(growing->zstd = ZSTD_createCCtx()))
		return NO_MEMORY;
	const char *error = FAILED;
	if (!ZSTD_isError(ZSTD_CCtx_setParameter(growing->zstd, ZSTD_c_compressionLevel, member->level)) &&
	    !ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(growing->zstd, size)))
		error = add_all(growing);
	ZSTD_freeCCtx(growing->zstd);
	return error;
}

const char *compress_large_member(const struct large_member *member, uint8_t **out, size_t *used, size_t *capacity,
				  uint32_t *size)
{
	struct growing growing = {.member = member, .out = out, .used = used, .capacity = capacity};
	size_t start = *used;
	const char *error = member->kind == MEMBER_GZIP ? deflate_member(&growing) : zstd_member(&growing);
	if (error)
		return error;
	if (*used - start > UINT32_MAX)
		return FAILED;
	*size = (uint32_t)(*used - start);
	return NULL;
}
