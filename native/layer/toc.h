// A TOC's JSON as a table of entries: what splitToc and parseToc of src/lib/estargz do.

#ifndef TOC_H
#define TOC_H

#include "json.h"

enum toc_type { TYPE_REG, TYPE_DIR, TYPE_SYMLINK, TYPE_HARDLINK, TYPE_CHAR, TYPE_BLOCK, TYPE_FIFO, TYPE_CHUNK, TYPE_COUNT };

// One extended attribute: its name, and its value in base64 as the TOC has it.
struct toc_xattr {
	struct text name;
	struct text value;
};

// One entry; what is not there is zero. Numbers are whole, and below 2^53 however many they add up to here.
struct toc_entry {
	struct text name;
	struct text link;
	// Whatever the TOC has there; NULL for nothing.
	struct text digest;
	struct text chunk_digest;
	const struct toc_xattr *xattrs;
	int64_t size;
	int64_t offset;
	int64_t inner_offset;
	int64_t chunk_offset;
	int64_t chunk_size;
	int64_t uid;
	int64_t gid;
	int64_t dev_major;
	int64_t dev_minor;
	int64_t mtime_seconds;
	uint32_t mtime_nanoseconds;
	uint32_t xattr_count;
	uint16_t mode; // 07777
	uint8_t type;
};

struct toc {
	struct toc_entry *entries;
	size_t count;
	size_t capacity;
};

// Leaves with what parseToc throws. The entries point into `json`.
struct toc parse_toc(struct opening *opening, struct text json);

// The time of an RFC 3339 text, or the epoch for what is none (parseTocTime).
void parse_time(struct text text, int64_t *seconds, uint32_t *nanoseconds);

#endif
