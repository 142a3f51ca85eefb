#include "toc.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// See src/lib/estargz/toc.ts and split-toc.ts for what these are derived from.
#define MAX_TOC_SIZE (384u << 20)
#define MAX_TOC_ENTRIES 1100000
#define PIECE_SIZE (256u << 10)
#define MAX_ENTRY_SIZE (4u << 20)
#define MAX_FRAME_SIZE (64u << 10)

// --- Cutting ---------------------------------------------------------------------------------------------------------

struct pieces {
	struct text *list;
	size_t count;
	// Entries that there can be, going by commas.
	size_t most;
	// From behind the bracket that opens the list to the one that closes it; NULL without one.
	const uint8_t *start;
	const uint8_t *end;
	const uint8_t *from;
};

static void cut(struct opening *opening, struct pieces *pieces, const uint8_t *at)
{
	if ((size_t)(at - pieces->from) > PIECE_SIZE + MAX_ENTRY_SIZE)
		fail(opening, OPEN_UNSUPPORTED, "Cannot read the TOC of %w: an entry has more than %d bytes",
		     (int64_t)MAX_ENTRY_SIZE);
	pieces->list[pieces->count++] = (struct text){pieces->from, (size_t)(at - pieces->from)};
	pieces->from = at + 1;
	check_abort(opening);
}

// Where the string that starts at `at` has its closing quote; `end` without one.
static const uint8_t *end_of_string(const uint8_t *at, const uint8_t *end)
{
	bool ignored;
	for (at++; at < end; at++) {
		at = json_plain_end(at, end, &ignored);
		if (at == end || *at == '"')
			return at;
		if (*at == '\\' && ++at == end)
			return end;
	}
	return end;
}

// Cuts the list of entries without looking closely; what is not JSON shows later.
static struct pieces split_toc(struct opening *opening, struct text json)
{
	static const uint8_t structural[256] = {['"'] = 1, ['['] = 1, [']'] = 1, ['{'] = 1, ['}'] = 1, [','] = 1};
	struct pieces pieces = {0};
	const uint8_t *end = json.at + json.size;
	bool is_entries = false;
	int64_t depth = 0;
	// Every piece but the last has so many bytes.
	pieces.list = take(opening, json.size / PIECE_SIZE + 2, sizeof *pieces.list);
	for (const uint8_t *at = json.at; at < end; at++) {
		if (!structural[*at])
			continue;
		bool in_list = pieces.start && !pieces.end;
		switch (*at) {
		case '"': {
			const uint8_t *closing = end_of_string(at, end);
			if (depth == 1)
				is_entries = closing < end && text_is((struct text){at, (size_t)(closing + 1 - at)}, "\"entries\"", 9);
			if (closing == end)
				return pieces;
			at = closing;
			break;
		}
		case '[':
		case '{':
			if (depth++ != 1 || !is_entries || *at == '{')
				break;
			if (pieces.start)
				fail(opening, OPEN_CORRUPT, "Cannot read the TOC of %w: it has two lists of entries");
			pieces.start = pieces.from = at + 1;
			break;
		case ']':
		case '}':
			if (--depth != 1 || !in_list)
				break;
			cut(opening, &pieces, at);
			pieces.most++;
			pieces.end = at;
			break;
		default:
			if (depth != 2 || !in_list)
				break;
			pieces.most++;
			if ((size_t)(at - pieces.from) >= PIECE_SIZE)
				cut(opening, &pieces, at);
		}
	}
	return pieces;
}

// --- All besides the entries -----------------------------------------------------------------------------------------

noreturn static void not_json(struct opening *opening)
{
	fail(opening, OPEN_CORRUPT, "Cannot read the TOC of %w: it is not JSON");
}

enum list_state { LIST_MISSING, LIST_NULL, LIST_EMPTY };

struct frame {
	struct json_value version;
	bool has_version;
	enum list_state list;
};

static bool is_empty_list(struct text raw)
{
	struct cursor inside = {raw.at + 1, raw.at + raw.size};
	return json_accept(&inside, ']');
}

static struct frame parse_frame(struct opening *opening, struct text bytes)
{
	struct frame frame = {0};
	struct cursor cursor = {bytes.at, bytes.at + bytes.size};
	// A decoder drops a byte order mark.
	if (bytes.size >= 3 && memcmp(bytes.at, "\xef\xbb\xbf", 3) == 0)
		cursor.at += 3;
	if (!json_accept(&cursor, '{')) {
		if (json_read(opening, &cursor).kind == JSON_BROKEN)
			not_json(opening);
	} else if (!json_accept(&cursor, '}')) {
		do {
			struct json_value key, value;
			if (!json_read_key(&cursor, &key) || (value = json_read(opening, &cursor)).kind == JSON_BROKEN)
				not_json(opening);
			struct text name = json_text(opening, &key);
			if (TEXT_IS(name, "version")) {
				frame.version = value;
				frame.has_version = true;
			} else if (TEXT_IS(name, "entries")) {
				frame.list = value.kind == JSON_NULL ? LIST_NULL :
					     value.kind == JSON_LIST && is_empty_list(value.raw) ? LIST_EMPTY : LIST_MISSING;
			}
		} while (json_accept(&cursor, ','));
		if (!json_accept(&cursor, '}'))
			not_json(opening);
	}
	json_skip_space(&cursor);
	if (cursor.at != cursor.end)
		not_json(opening);
	return frame;
}

// A number as JavaScript writes it: the fewest digits that give it back.
static void write_number(double number, char *text, size_t size)
{
	char digits[40];
	int precision = 0;
	do
		snprintf(digits, sizeof digits, "%.*e", precision, fabs(number));
	while (precision++ < 17 && strtod(digits, NULL) != fabs(number));
	const char *sign = number < 0 ? "-" : "";
	if (isinf(number)) {
		snprintf(text, size, "%sInfinity", sign);
		return;
	}
	char *exponent_at = strchr(digits, 'e');
	int exponent = atoi(exponent_at + 1), count = 0;
	for (char *at = digits; at < exponent_at; at++)
		if (*at != '.')
			digits[count++] = *at;
	digits[count] = 0;
	if (exponent >= 21 || exponent < -6)
		snprintf(text, size, "%s%c%s%se%+d", sign, digits[0], count > 1 ? "." : "", digits + 1, exponent);
	else if (exponent < 0)
		snprintf(text, size, "%s0.%.*s%s", sign, -exponent - 1, "000000", digits);
	else if (count > exponent + 1)
		snprintf(text, size, "%s%.*s.%s", sign, exponent + 1, digits, digits + exponent + 1);
	else
		snprintf(text, size, "%s%s%.*s", sign, digits, exponent + 1 - count, "000000000000000000000");
}

static void check_version(struct opening *opening, const struct frame *frame)
{
	static const char *const types[] = {
		[JSON_NULL] = "a object", [JSON_BOOLEAN] = "a boolean", [JSON_STRING] = "a string",
		[JSON_LIST] = "a object", [JSON_OBJECT] = "a object",
	};
	char number[80];
	const char *found = "a undefined";
	if (frame->has_version && frame->version.kind == JSON_NUMBER) {
		if (frame->version.number == 1)
			return;
		write_number(frame->version.number, number, sizeof number);
		found = number;
	} else if (frame->has_version) {
		found = types[frame->version.kind];
	}
	fail(opening, OPEN_UNSUPPORTED, "Cannot read the TOC of %w: its version is %s, not 1", found);
}

// Whether there are entries: Go writes null for an empty list.
static bool check_frame(struct opening *opening, struct text json, const struct pieces *pieces)
{
	struct text bytes = json;
	if (pieces->start) {
		size_t before = (size_t)(pieces->start - json.at);
		size_t after = pieces->end ? json.size - (size_t)(pieces->end - json.at) : 0;
		bytes.size = before + after;
		if (bytes.size <= MAX_FRAME_SIZE) {
			uint8_t *joined = take_bytes(opening, bytes.size);
			memcpy(joined, json.at, before);
			if (after > 0)
				memcpy(joined + before, pieces->end, after);
			bytes.at = joined;
		}
	}
	if (bytes.size > MAX_FRAME_SIZE)
		fail(opening, OPEN_UNSUPPORTED, "Cannot read the TOC of %w: it has too much besides its entries");
	struct frame frame = parse_frame(opening, bytes);
	check_version(opening, &frame);
	if (frame.list == LIST_MISSING)
		fail(opening, OPEN_CORRUPT, "Cannot read the TOC of %w: it has no list of entries");
	return frame.list == LIST_EMPTY;
}

// --- Entries ---------------------------------------------------------------------------------------------------------

// Those that are checked in this order, and two that are checked first.
enum key {
	KEY_SIZE, KEY_MODTIME, KEY_LINK_NAME, KEY_MODE, KEY_UID, KEY_GID, KEY_USER_NAME, KEY_GROUP_NAME, KEY_OFFSET,
	KEY_INNER_OFFSET, KEY_DEV_MAJOR, KEY_DEV_MINOR, KEY_XATTRS, KEY_DIGEST, KEY_CHUNK_OFFSET, KEY_CHUNK_SIZE,
	KEY_CHUNK_DIGEST, KEY_NAME, KEY_TYPE, KEY_COUNT,
};

#define CHECKED_KEYS KEY_NAME

static const char *const KEYS[KEY_COUNT] = {
	"size", "modtime", "linkName", "mode", "uid", "gid", "userName", "groupName", "offset", "innerOffset", "devMajor",
	"devMinor", "xattrs", "digest", "chunkOffset", "chunkSize", "chunkDigest", "name", "type",
};

// Told apart by their sizes, and then by a letter.
static enum key key_of(struct text text)
{
	enum key key = KEY_COUNT;
	switch (text.size) {
	case 3:
		key = text.at[0] == 'u' ? KEY_UID : KEY_GID;
		break;
	case 4:
		key = text.at[0] == 'n' ? KEY_NAME : text.at[0] == 't' ? KEY_TYPE : text.at[0] == 's' ? KEY_SIZE : KEY_MODE;
		break;
	case 6:
		key = text.at[0] == 'd' ? KEY_DIGEST : text.at[0] == 'o' ? KEY_OFFSET : KEY_XATTRS;
		break;
	case 7:
		key = KEY_MODTIME;
		break;
	case 8:
		key = text.at[0] == 'u' ? KEY_USER_NAME : text.at[0] == 'l' ? KEY_LINK_NAME :
		      text.at[4] == 'a' ? KEY_DEV_MAJOR : KEY_DEV_MINOR;
		break;
	case 9:
		key = text.at[0] == 'g' ? KEY_GROUP_NAME : KEY_CHUNK_SIZE;
		break;
	case 11:
		key = text.at[0] == 'i' ? KEY_INNER_OFFSET : text.at[5] == 'O' ? KEY_CHUNK_OFFSET : KEY_CHUNK_DIGEST;
		break;
	default:
		return KEY_COUNT;
	}
	return text_is(text, KEYS[key], text.size) ? key : KEY_COUNT;
}

static enum toc_type type_of(struct text text)
{
	static const char *const types[TYPE_COUNT] = {"reg", "dir", "symlink", "hardlink", "char", "block", "fifo", "chunk"};
	for (enum toc_type type = 0; type < TYPE_COUNT; type++)
		if (text_is(text, types[type], strlen(types[type])))
			return type;
	return TYPE_COUNT;
}

// Extended attributes in the order in which JavaScript has the keys of an object: those that are indexes of an array first,
// ascending, then as they came first; the last value of each.
struct xattrs {
	struct toc_xattr *list;
	size_t count;
	size_t capacity;
};

static bool is_index(struct text name, uint64_t *index)
{
	*index = 0;
	if (name.size == 0 || name.size > 10 || (name.at[0] == '0' && name.size > 1))
		return false;
	for (size_t i = 0; i < name.size; i++) {
		if (name.at[i] < '0' || name.at[i] > '9')
			return false;
		*index = *index * 10 + (uint64_t)(name.at[i] - '0');
	}
	return *index < UINT32_MAX;
}

static bool xattrs_in_order(const void *context, uint32_t left, uint32_t right)
{
	const struct toc_xattr *list = context;
	uint64_t left_index, right_index;
	bool is_left = is_index(list[left].name, &left_index), is_right = is_index(list[right].name, &right_index);
	return is_left ? !is_right || left_index <= right_index : !is_right;
}

// By name, and those of one name as they came.
static bool names_in_order(const void *context, uint32_t left, uint32_t right)
{
	const struct toc_xattr *list = context;
	struct text one = list[left].name, other = list[right].name;
	int difference = memcmp(one.at, other.at, one.size < other.size ? one.size : other.size);
	return difference != 0 ? difference < 0 : one.size <= other.size;
}

static void drop_repeated(struct opening *opening, struct xattrs *xattrs, uint32_t *indexes)
{
	struct toc_xattr *list = xattrs->list;
	sort_indexes(opening, indexes, xattrs->count, names_in_order, list);
	size_t kept = 0;
	for (size_t i = 0, next; i < xattrs->count; i = next) {
		uint32_t first = indexes[i];
		for (next = i + 1; next < xattrs->count && names_in_order(list, indexes[next], first); next++) {
			list[first].value = list[indexes[next]].value;
			list[indexes[next]].value.at = NULL;
		}
	}
	for (size_t i = 0; i < xattrs->count; i++)
		if (list[i].value.at)
			list[kept++] = list[i];
	xattrs->count = kept;
}

// False for what is no object of strings.
static bool parse_xattrs(struct opening *opening, const struct json_value *object, struct toc_entry *entry)
{
	if (object->kind != JSON_OBJECT)
		return false;
	struct xattrs xattrs = {0};
	struct cursor cursor = {object->raw.at + 1, object->raw.at + object->raw.size};
	if (json_accept(&cursor, '}'))
		return true;
	do {
		struct json_value key, value;
		// It has been read before, so it is right.
		json_read_key(&cursor, &key);
		value = json_read(opening, &cursor);
		// One that is no string may yet be replaced by one that is.
		xattrs.list = grow(opening, xattrs.list, xattrs.count, &xattrs.capacity, sizeof *xattrs.list);
		xattrs.list[xattrs.count++] = (struct toc_xattr){
			json_text(opening, &key),
			value.kind == JSON_STRING ? json_text(opening, &value) : (struct text){(const uint8_t *)"", SIZE_MAX},
		};
	} while (json_accept(&cursor, ','));
	if (xattrs.count > 1) {
		uint32_t *indexes = take(opening, xattrs.count, sizeof *indexes);
		for (uint32_t i = 0; i < xattrs.count; i++)
			indexes[i] = i;
		drop_repeated(opening, &xattrs, indexes);
		for (uint32_t i = 0; i < xattrs.count; i++)
			indexes[i] = i;
		sort_indexes(opening, indexes, xattrs.count, xattrs_in_order, xattrs.list);
		struct toc_xattr *ordered = take(opening, xattrs.count, sizeof *ordered);
		for (size_t i = 0; i < xattrs.count; i++)
			ordered[i] = xattrs.list[indexes[i]];
		drop(opening, indexes);
		drop(opening, xattrs.list);
		xattrs.list = ordered;
	}
	for (size_t i = 0; i < xattrs.count; i++)
		if (xattrs.list[i].value.size == SIZE_MAX)
			return false;
	entry->xattrs = xattrs.list;
	entry->xattr_count = (uint32_t)xattrs.count;
	return true;
}

// Takes one field into the entry; false for one of the wrong type.
static bool take_field(struct opening *opening, enum key key, const struct json_value *value, struct toc_entry *entry)
{
	static const size_t numbers[KEY_COUNT] = {
		[KEY_SIZE] = offsetof(struct toc_entry, size),
		[KEY_UID] = offsetof(struct toc_entry, uid),
		[KEY_GID] = offsetof(struct toc_entry, gid),
		[KEY_OFFSET] = offsetof(struct toc_entry, offset),
		[KEY_INNER_OFFSET] = offsetof(struct toc_entry, inner_offset),
		[KEY_DEV_MAJOR] = offsetof(struct toc_entry, dev_major),
		[KEY_DEV_MINOR] = offsetof(struct toc_entry, dev_minor),
		[KEY_CHUNK_OFFSET] = offsetof(struct toc_entry, chunk_offset),
		[KEY_CHUNK_SIZE] = offsetof(struct toc_entry, chunk_size),
	};
	int64_t number;
	switch (key) {
	case KEY_MODTIME:
		if (value->kind != JSON_STRING)
			return false;
		parse_time(value->is_plain ? value->raw : json_text(opening, value), &entry->mtime_seconds,
			   &entry->mtime_nanoseconds);
		return true;
	case KEY_LINK_NAME:
		if (value->kind != JSON_STRING)
			return false;
		entry->link = json_text(opening, value);
		return true;
	case KEY_USER_NAME:
	case KEY_GROUP_NAME:
		return value->kind == JSON_STRING;
	case KEY_DIGEST:
	case KEY_CHUNK_DIGEST:
		if (value->kind != JSON_STRING)
			return false;
		*(key == KEY_DIGEST ? &entry->digest : &entry->chunk_digest) = json_text(opening, value);
		return true;
	case KEY_XATTRS:
		return parse_xattrs(opening, value, entry);
	case KEY_MODE:
		if (!json_integer(value, &number))
			return false;
		entry->mode = (uint16_t)((uint64_t)number & 07777);
		return true;
	default:
		if (!json_integer(value, &number) || (number < 0 && key != KEY_UID && key != KEY_GID))
			return false;
		memcpy((char *)entry + numbers[key], &number, sizeof number);
		return true;
	}
}

// What is wrong with the first entry that is: `key` is KEY_NAME for one without name or type.
struct problem {
	bool is_there;
	size_t entry;
	enum key key;
};

// The fields of one object, the last of each name; then the entry. False when it is no JSON.
static bool parse_entry(struct opening *opening, struct cursor *cursor, struct toc_entry *entry, enum key *wrong)
{
	struct json_value fields[KEY_COUNT];
	uint32_t seen = 0;
	*wrong = KEY_COUNT;
	if (!json_accept(cursor, '{')) {
		*wrong = KEY_NAME;
		return json_read(opening, cursor).kind != JSON_BROKEN;
	}
	if (!json_accept(cursor, '}')) {
		do {
			struct json_value name, value;
			if (!json_read_key(cursor, &name) || (value = json_read(opening, cursor)).kind == JSON_BROKEN)
				return false;
			enum key key = key_of(name.is_plain ? name.raw : json_text(opening, &name));
			if (key == KEY_COUNT)
				continue;
			fields[key] = value;
			seen |= 1u << key;
		} while (json_accept(cursor, ','));
		if (!json_accept(cursor, '}'))
			return false;
	}
	if (!(seen >> KEY_NAME & 1) || fields[KEY_NAME].kind != JSON_STRING || !(seen >> KEY_TYPE & 1) ||
	    fields[KEY_TYPE].kind != JSON_STRING ||
	    (entry->type = (uint8_t)type_of(json_text(opening, &fields[KEY_TYPE]))) == TYPE_COUNT) {
		*wrong = KEY_NAME;
		return true;
	}
	entry->name = json_text(opening, &fields[KEY_NAME]);
	for (enum key key = 0; key < CHECKED_KEYS; key++) {
		if (!(seen >> key & 1) || fields[key].kind == JSON_NULL)
			continue;
		if (!take_field(opening, key, &fields[key], entry)) {
			*wrong = key;
			return true;
		}
	}
	return true;
}

static void report(struct opening *opening, const struct problem *problem)
{
	if (!problem->is_there)
		return;
	if (problem->key == KEY_NAME)
		fail(opening, OPEN_CORRUPT, "Cannot use the TOC of %w, entry %d: it has no name or no valid type",
		     (int64_t)problem->entry);
	fail(opening, OPEN_CORRUPT, "Cannot use the TOC of %w, entry %d: its \"%s\" is not valid", (int64_t)problem->entry,
	     KEYS[problem->key]);
}

// All entries of a piece. What is no JSON comes before what is no entry, wherever it stands.
static void parse_piece(struct opening *opening, struct text piece, bool may_be_empty, struct toc *toc, size_t *xattrs)
{
	struct cursor cursor = {piece.at, piece.at + piece.size};
	struct problem problem = {0};
	size_t count = toc->count;
	json_skip_space(&cursor);
	if (cursor.at == cursor.end) {
		if (!may_be_empty)
			not_json(opening);
		return;
	}
	do {
		struct toc_entry entry = {0};
		enum key wrong = KEY_COUNT;
		bool is_json = problem.is_there || count >= toc->capacity
				       ? json_read(opening, &cursor).kind != JSON_BROKEN
				       : parse_entry(opening, &cursor, &entry, &wrong);
		if (!is_json)
			not_json(opening);
		if (wrong != KEY_COUNT) {
			problem = (struct problem){true, count, wrong};
		} else if (!problem.is_there && count < toc->capacity) {
			toc->entries[count] = entry;
			*xattrs += entry.xattr_count;
		}
		count++;
		check_abort(opening);
	} while (json_accept(&cursor, ','));
	if (cursor.at != cursor.end)
		not_json(opening);
	if (count > MAX_TOC_ENTRIES)
		fail(opening, OPEN_UNSUPPORTED, "Cannot read the TOC of %w: it has more than %d entries",
		     (int64_t)MAX_TOC_ENTRIES);
	report(opening, &problem);
	if (*xattrs > MAX_TOC_ENTRIES)
		fail(opening, OPEN_UNSUPPORTED, "Cannot read the TOC of %w: it has more than %d extended attributes",
		     (int64_t)MAX_TOC_ENTRIES);
	toc->count = count;
}

struct toc parse_toc(struct opening *opening, struct text json)
{
	struct toc toc = {0};
	size_t xattrs = 0;
	if (json.size > MAX_TOC_SIZE)
		fail(opening, OPEN_UNSUPPORTED, "Cannot read the TOC of %w: it is larger than %d bytes", (int64_t)MAX_TOC_SIZE);
	struct pieces pieces = split_toc(opening, json);
	if (!check_frame(opening, json, &pieces))
		return toc;
	size_t most = pieces.most < MAX_TOC_ENTRIES ? pieces.most : MAX_TOC_ENTRIES;
	toc.capacity = most;
	toc.entries = take(opening, most, sizeof *toc.entries);
	for (size_t i = 0; i < pieces.count; i++)
		parse_piece(opening, pieces.list[i], pieces.count == 1, &toc, &xattrs);
	drop(opening, pieces.list);
	return toc;
}
