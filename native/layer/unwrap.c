#include "unwrap.h"

#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

// MAX_TOC_TAR_SIZE of src/lib/estargz/toc.ts.
#define MAX_TAR_SIZE (((size_t)384 << 20) + 4096)
#define TAR_BLOCK_SIZE 512
// RFC 1952: FHCRC, a checksum of the header that libdeflate does not look at.
#define GZIP_FLAGS_AT 3
#define GZIP_HEADER_CRC 2
#define MIN_GZIP_SIZE 18
// What one byte of deflate can become: 258 bytes for two bits.
#define MAX_DEFLATE_RATIO 1032
// A decoder of streams takes no larger window, 2^27 bytes, and of a frame in one segment that is its contents.
#define MAX_ZSTD_WINDOW ((size_t)1 << 27)

noreturn static void wrapped_otherwise(struct opening *opening)
{
	leave(opening, OPEN_WRAPPED_OTHERWISE);
}

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static struct text inflate_gzip(struct opening *opening, struct text in)
{
	if (in.size < MIN_GZIP_SIZE || in.at[GZIP_FLAGS_AT] & GZIP_HEADER_CRC)
		wrapped_otherwise(opening);
	size_t size = get32(in.at + in.size - 4), consumed, produced;
	// Memory is taken before anything is decompressed, so what cannot be must not ask for it.
	if (size > MAX_TAR_SIZE || size / MAX_DEFLATE_RATIO > in.size)
		wrapped_otherwise(opening);
	uint8_t *out = take_bytes(opening, size);
	struct libdeflate_decompressor *decompressor = libdeflate_alloc_decompressor();
	if (!decompressor)
		leave(opening, OPEN_NO_MEMORY);
	enum libdeflate_result result =
		libdeflate_gzip_decompress_ex(decompressor, in.at, in.size, out, size, &consumed, &produced);
	libdeflate_free_decompressor(decompressor);
	if (result != LIBDEFLATE_SUCCESS || consumed != in.size || produced != size)
		wrapped_otherwise(opening);
	return (struct text){out, size};
}

static struct text inflate_zstd(struct opening *opening, struct text in)
{
	static const uint8_t magic[] = {0x28, 0xb5, 0x2f, 0xfd};
	if (in.size < 6 || memcmp(in.at, magic, sizeof magic) != 0)
		wrapped_otherwise(opening);
	unsigned long long told = ZSTD_getFrameContentSize(in.at, in.size);
	// 0b100000 says that there is one segment; else the next byte's upper five bits are the window's exponent above 10.
	bool is_one_segment = in.at[4] & 0x20;
	if (told > MAX_ZSTD_WINDOW || (!is_one_segment && in.at[5] >> 3 >= 17) ||
	    ZSTD_findFrameCompressedSize(in.at, in.size) != in.size)
		wrapped_otherwise(opening);
	size_t size = (size_t)told;
	uint8_t *out = take_bytes(opening, size);
	if (ZSTD_decompress(out, size, in.at, in.size) != size)
		wrapped_otherwise(opening);
	return (struct text){out, size};
}

// Octal digits, at least one, and then NULs and spaces, at least one.
static bool octal(const uint8_t *field, size_t size, size_t *number)
{
	size_t at = 0;
	*number = 0;
	for (; at < size && field[at] >= '0' && field[at] <= '7'; at++)
		*number = *number * 8 + (size_t)(field[at] - '0');
	bool is_right = at > 0 && at < size;
	for (; at < size; at++)
		is_right = is_right && (field[at] == 0 || field[at] == ' ');
	return is_right;
}

// The contents of the tar's first file, which must be the TOC under a header as tars have them: ustar, with no prefix.
static struct text unwrap_tar(struct opening *opening, struct text tar)
{
	static const char name[] = "stargz.index.json";
	static const struct {
		size_t at;
		size_t size;
	} numbers[] = {{100, 8}, {108, 8}, {116, 8}, {136, 12}, {329, 8}, {337, 8}};
	size_t size, sum, found = 0, ignored;
	const uint8_t *header = tar.at;
	if (tar.size < TAR_BLOCK_SIZE || memcmp(header, name, sizeof name) != 0 || memcmp(header + 257, "ustar", 6) != 0 ||
	    header[345] != 0 || !octal(header + 124, 12, &size) || size > tar.size - TAR_BLOCK_SIZE ||
	    !octal(header + 148, 8, &sum))
		wrapped_otherwise(opening);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		if (!octal(header + numbers[i].at, numbers[i].size, &ignored))
			wrapped_otherwise(opening);
	for (size_t i = 0; i < TAR_BLOCK_SIZE; i++)
		found += i >= 148 && i < 156 ? ' ' : header[i];
	if (found != sum)
		wrapped_otherwise(opening);
	return (struct text){tar.at + TAR_BLOCK_SIZE, size};
}

struct text unwrap_toc(struct opening *opening)
{
	struct text toc = {opening->task->toc, opening->task->toc_size};
	switch (opening->task->wrapping) {
	case TOC_TAR_GZIP:
		return unwrap_tar(opening, inflate_gzip(opening, toc));
	case TOC_ZSTD:
		return inflate_zstd(opening, toc);
	default:
		return toc;
	}
}
