#include "spool.h"

#include <errno.h>
#include <unistd.h>

const char NO_MEMORY[] = "out of memory";
const char BAD_PIECE[] = "a piece lies outside of its source";

const char *read_spool(int fd, uint8_t *out, size_t size, uint64_t offset)
{
	while (size > 0) {
		ssize_t n = pread(fd, out, size, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return "the temporary file cannot be read";
		if (n == 0)
			return "the temporary file is shorter than it should be";
		out += n;
		size -= (size_t)n;
		offset += (uint64_t)n;
	}
	return NULL;
}

const char *locate(const struct spool *spool, const struct piece_lists *lists, size_t piece, const uint8_t **at,
			  size_t *size, uint64_t *file_offset)
{
	double offset = lists->offsets[piece], length = lists->sizes[piece];
	if (!(length >= 0 && length <= 9007199254740991.0) || !(offset >= -9007199254740991.0 && offset <= 9007199254740991.0))
		return BAD_PIECE;
	const uint8_t *base = spool->memory;
	size_t limit = spool->memory_size;
	uint64_t start;
	if (offset < 0) {
		base = lists->literals;
		limit = lists->literals_size;
		start = (uint64_t)(-1 - offset);
	} else {
		start = (uint64_t)offset;
	}
	*size = (size_t)length;
	*file_offset = start;
	if (offset >= 0 && !base) {
		*at = NULL;
		return NULL;
	}
	if (start > limit || *size > limit - start)
		return BAD_PIECE;
	*at = base + start;
	return NULL;
}
