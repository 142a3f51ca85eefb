#include "index.h"

#include <stdlib.h>
#include <string.h>

#include "path.h"

// DEFAULT_TAR_LIMITS of src/lib/tar/tar-entry.ts, and MAX_CHUNK_SIZE of src/lib/estargz/plan-layer.ts.
#define MAX_PATH_SIZE 4096
#define MAX_NAME_SIZE 255
#define MAX_DEPTH 1024
#define MAX_CHUNK_SIZE (128 << 20)
#define WHITEOUT_PREFIX ".wh."
#define WHITEOUT_PREFIX_SIZE (sizeof WHITEOUT_PREFIX - 1)

static void check_path_limits(struct opening *opening, struct text path, const struct toc_entry *entry)
{
	size_t depth = 1, longest = 0, start = 0;
	if (path.size > MAX_PATH_SIZE)
		fail(opening, OPEN_UNSUPPORTED, "Cannot use the TOC of %w, entry %q: its path is longer than %d bytes", &entry->name,
		     (int64_t)MAX_PATH_SIZE);
	// Most are short.
	if (path.size <= MAX_NAME_SIZE)
		return;
	for (size_t at = 0; at <= path.size; at++) {
		if (at < path.size && path.at[at] != '/')
			continue;
		depth += at < path.size;
		// Nobody makes a file of a whiteout's name, but of the one that it hides.
		if (at == path.size && at - start >= WHITEOUT_PREFIX_SIZE &&
		    memcmp(path.at + start, WHITEOUT_PREFIX, WHITEOUT_PREFIX_SIZE) == 0)
			start += WHITEOUT_PREFIX_SIZE;
		longest = at - start > longest ? at - start : longest;
		start = at + 1;
	}
	if (depth > MAX_DEPTH)
		fail(opening, OPEN_UNSUPPORTED, "Cannot use the TOC of %w, entry %q: its path is deeper than %d directories",
		     &entry->name, (int64_t)MAX_DEPTH);
	if (longest > MAX_NAME_SIZE)
		fail(opening, OPEN_UNSUPPORTED,
		     "Cannot use the TOC of %w, entry %q: its path has a component of more than %d bytes", &entry->name,
		     (int64_t)MAX_NAME_SIZE);
}

noreturn static void wrong(struct opening *opening, const struct toc_entry *entry, const char *problem)
{
	fail(opening, OPEN_CORRUPT, "Cannot use the TOC of %w, entry %q: %s", &entry->name, problem);
}

static struct text place_of(struct opening *opening, const struct toc_entry *entry)
{
	uint32_t climbs;
	struct text path = clean_path(opening, entry->name, &climbs);
	if (climbs > 0)
		wrong(opening, entry, "its name leaves the layer");
	check_path_limits(opening, path, entry);
	if (entry->link.size > MAX_PATH_SIZE)
		fail(opening, OPEN_UNSUPPORTED, "Cannot use the TOC of %w, entry %q: its link is longer than %d bytes", &entry->name,
		     (int64_t)MAX_PATH_SIZE);
	return path;
}

static int compare_offsets(const void *left, const void *right)
{
	uint64_t one = *(const uint64_t *)left, other = *(const uint64_t *)right;
	return (one > other) - (one < other);
}

static void find_streams(struct opening *opening, const struct toc *toc, struct layer_index *index)
{
	uint64_t *offsets = take(opening, toc->count + 1, sizeof *offsets);
	size_t count = 0;
	bool is_sorted = true;
	for (size_t i = 0; i < toc->count; i++) {
		const struct toc_entry *entry = &toc->entries[i];
		if (entry->type != TYPE_CHUNK && (entry->type != TYPE_REG || entry->size == 0))
			continue;
		uint64_t offset = (uint64_t)entry->offset;
		if (offset >= opening->task->data_end) {
			place_of(opening, entry);
			fail(opening, OPEN_CORRUPT, "Cannot use the TOC of %w, entry %q: its offset %d is outside of the layer",
			     &entry->name, (int64_t)offset);
		}
		if (count > 0 && offset == offsets[count - 1])
			continue;
		is_sorted = is_sorted && (count == 0 || offset > offsets[count - 1]);
		offsets[count++] = offset;
		check_abort(opening);
	}
	if (!is_sorted) {
		qsort(offsets, count, sizeof *offsets, compare_offsets);
		size_t kept = 1;
		for (size_t i = 1; i < count; i++)
			if (offsets[i] != offsets[kept - 1])
				offsets[kept++] = offsets[i];
		count = kept;
	}
	offsets[count] = opening->task->data_end;
	index->offsets = offsets;
	index->offset_count = count;
}

size_t stream_at(const struct layer_index *index, uint64_t offset, size_t hint)
{
	for (size_t near = hint; near < hint + 2 && near < index->offset_count; near++)
		if (index->offsets[near] == offset)
			return near;
	size_t low = 0, high = index->offset_count;
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;
		if (index->offsets[middle] <= offset)
			low = middle;
		else
			high = middle;
	}
	return low;
}

// "sha256:" and 64 hex digits.
static bool is_digest(struct text text)
{
	if (text.size != 71 || memcmp(text.at, "sha256:", 7) != 0)
		return false;
	uint8_t is_wrong = 0;
	// All of them, whatever comes out, so that many are done at once.
	for (size_t i = 7; i < 71; i++)
		is_wrong |= ((uint8_t)(text.at[i] - '0') >= 10) & ((uint8_t)(text.at[i] - 'a') >= 6);
	return !is_wrong;
}

static void check_chunks(struct opening *opening, struct toc_entry *parts, size_t count)
{
	const struct toc_entry *file = parts;
	int64_t file_size = file->size, covered = 0;
	for (size_t i = 0; i < count; i++) {
		struct toc_entry *part = &parts[i];
		int64_t size = part->chunk_size ? part->chunk_size : file_size - part->chunk_offset;
		if (part->name.size != file->name.size || memcmp(part->name.at, file->name.at, file->name.size) != 0)
			fail(opening, OPEN_CORRUPT, "Cannot use the TOC of %w, entry %q: a chunk of %q follows it", &file->name,
			     &part->name);
		// All are below 2^53, so that none of the sums overflows.
		if (part->chunk_offset != covered || size <= 0 || covered + size > file_size)
			wrong(opening, file, "its chunks do not follow each other");
		if (size > MAX_CHUNK_SIZE)
			fail(opening, OPEN_UNSUPPORTED, "Cannot use the TOC of %w, entry %q: a chunk is larger than %d bytes",
			     &file->name, (int64_t)MAX_CHUNK_SIZE);
		covered += size;
		// An empty text is as none; the file's own digest will do when it is all one chunk.
		if (part->chunk_digest.size == 0)
			part->chunk_digest = count == 1 ? part->digest : (struct text){0};
		if (part->chunk_digest.at && !is_digest(part->chunk_digest))
			wrong(opening, file, "the digest of a chunk is not valid");
		part->chunk_size = size;
	}
	if (covered != file_size)
		fail(opening, OPEN_CORRUPT, "Cannot use the TOC of %w, entry %q: its chunks have %d bytes instead of %d", &file->name,
		     covered, file_size);
}

// Landmarks say what to prefetch, of several of one name the last; they and the TOC describe the layer, and are no files of
// its tree.
struct landmarks {
	const struct toc_entry *prefetch;
	bool has_prefetch_contents;
	bool has_no_prefetch;
};

static bool is_describing(struct text path, const struct toc_entry *entry, struct landmarks *landmarks)
{
	if (TEXT_IS(path, "stargz.index.json"))
		return true;
	if (TEXT_IS(path, ".no.prefetch.landmark"))
		return landmarks->has_no_prefetch = true;
	if (!TEXT_IS(path, ".prefetch.landmark"))
		return false;
	landmarks->prefetch = entry;
	landmarks->has_prefetch_contents = entry->type == TYPE_REG && entry->size > 0;
	return true;
}

struct layer_index index_toc(struct opening *opening, const struct toc *toc)
{
	struct layer_index index = {.prefetch_size = -1};
	struct landmarks landmarks = {0};
	find_streams(opening, toc, &index);
	index.files = take(opening, toc->count, sizeof *index.files);
	for (size_t i = 0; i < toc->count;) {
		struct toc_entry *entry = &toc->entries[i];
		struct text path = place_of(opening, entry);
		if (entry->type == TYPE_CHUNK)
			wrong(opening, entry, "it is a chunk of no file");
		size_t parts = 1;
		while (i + parts < toc->count && toc->entries[i + parts].type == TYPE_CHUNK)
			parts++;
		bool has_contents = entry->type == TYPE_REG && entry->size > 0;
		if (has_contents)
			check_chunks(opening, entry, parts);
		else if (parts > 1)
			wrong(opening, entry, "it has chunks but no contents");
		i += parts;
		if (!is_describing(path, entry, &landmarks))
			index.files[index.count++] = (struct layer_file){entry, has_contents ? (uint32_t)parts : 0, path, 0};
		check_abort(opening);
	}
	if (landmarks.prefetch)
		index.prefetch_size = landmarks.has_prefetch_contents ? (double)landmarks.prefetch->offset : 0;
	else if (landmarks.has_no_prefetch)
		index.prefetch_size = 0;
	return index;
}
