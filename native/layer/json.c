#include "json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "utf8.h"

#define MAX_SAFE_INTEGER 9007199254740991
// Digits that always fit 64 bits.
#define MAX_FAST_DIGITS 18

void json_skip_space(struct cursor *cursor)
{
	while (cursor->at < cursor->end &&
	       (*cursor->at == ' ' || *cursor->at == '\n' || *cursor->at == '\r' || *cursor->at == '\t'))
		cursor->at++;
}

bool json_accept(struct cursor *cursor, uint8_t byte)
{
	json_skip_space(cursor);
	if (cursor->at == cursor->end || *cursor->at != byte)
		return false;
	cursor->at++;
	return true;
}

// Eight bytes at a time: a bit is set where a byte is a quote, a backslash or below 0x20 (and perhaps in later ones, so the
// bytes are then looked at one by one).
static bool is_all_plain(uint64_t word)
{
	const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;
	uint64_t quotes = word ^ ones * '"', backslashes = word ^ ones * '\\';
	return (((quotes - ones) | (backslashes - ones) | (word - ones * 0x20) | word) & tops) == 0;
}

const uint8_t *json_plain_end(const uint8_t *at, const uint8_t *end, bool *is_ascii)
{
	for (;;) {
		uint64_t word;
		while (end - at >= 8 && (memcpy(&word, at, 8), is_all_plain(word)))
			at += 8;
		const uint8_t *stop = end - at < 8 ? end : at + 8;
		for (; at < stop; at++) {
			if (*at == '"' || *at == '\\' || *at < 0x20)
				return at;
			if (*at >= 0x80)
				*is_ascii = false;
		}
		if (at == end)
			return end;
	}
}

// From behind the opening quote to behind the closing one.
static bool read_string(struct cursor *cursor, struct json_value *value)
{
	const uint8_t *start = cursor->at;
	bool is_ascii = true, has_escapes = false;
	for (;;) {
		const uint8_t *at = json_plain_end(cursor->at, cursor->end, &is_ascii);
		if (at == cursor->end || *at < 0x20)
			return false;
		if (*at == '"') {
			*value = (struct json_value){JSON_STRING, {start, (size_t)(at - start)}, is_ascii && !has_escapes, 0};
			cursor->at = at + 1;
			return true;
		}
		has_escapes = true;
		if (cursor->end - at < 2)
			return false;
		size_t size = 2;
		switch (at[1]) {
		case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
			break;
		case 'u':
			size = 6;
			if (cursor->end - at < 6)
				return false;
			for (int i = 2; i < 6; i++)
				if (!((at[i] >= '0' && at[i] <= '9') || ((at[i] | 0x20) >= 'a' && (at[i] | 0x20) <= 'f')))
					return false;
			break;
		default:
			return false;
		}
		cursor->at = at + size;
	}
}

static size_t skip_digits(struct cursor *cursor)
{
	const uint8_t *start = cursor->at;
	while (cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9')
		cursor->at++;
	return (size_t)(cursor->at - start);
}

// The number that a text of JSON's grammar is. A text of many digits is copied, to have an end.
static double slow_number(struct opening *opening, struct text raw)
{
	char short_text[64];
	char *text = raw.size < sizeof short_text ? short_text : take(opening, raw.size + 1, 1);
	memcpy(text, raw.at, raw.size);
	text[raw.size] = 0;
	// Nobody in this process sets a locale: the point is a point.
	double number = strtod(text, NULL);
	if (text != short_text)
		drop(opening, text);
	return number;
}

static bool read_number(struct opening *opening, struct cursor *cursor, struct json_value *value)
{
	const uint8_t *start = cursor->at;
	bool is_negative = *start == '-';
	if (is_negative)
		cursor->at++;
	const uint8_t *first = cursor->at;
	size_t digits = skip_digits(cursor);
	if (digits == 0 || (*first == '0' && digits > 1))
		return false;
	bool is_fast = digits <= MAX_FAST_DIGITS;
	if (cursor->at < cursor->end && *cursor->at == '.') {
		is_fast = false;
		cursor->at++;
		if (skip_digits(cursor) == 0)
			return false;
	}
	if (cursor->at < cursor->end && (*cursor->at | 0x20) == 'e') {
		is_fast = false;
		cursor->at++;
		if (cursor->at < cursor->end && (*cursor->at == '+' || *cursor->at == '-'))
			cursor->at++;
		if (skip_digits(cursor) == 0)
			return false;
	}
	*value = (struct json_value){JSON_NUMBER, {start, (size_t)(cursor->at - start)}, false, 0};
	if (is_fast) {
		int64_t number = 0;
		for (size_t i = 0; i < digits; i++)
			number = number * 10 + (first[i] - '0');
		value->number = is_negative ? -(double)number : (double)number;
	} else {
		value->number = slow_number(opening, value->raw);
	}
	return true;
}

static bool read_word(struct cursor *cursor, const char *word, size_t size)
{
	if ((size_t)(cursor->end - cursor->at) < size || memcmp(cursor->at, word, size) != 0)
		return false;
	cursor->at += size;
	return true;
}

// Which of the lists and objects around a place are objects, one bit each.
struct nesting {
	uint8_t *bits;
	size_t capacity;
	size_t depth;
	uint8_t few[16];
};

static void push(struct opening *opening, struct nesting *nesting, bool is_object)
{
	size_t byte = nesting->depth / 8;
	uint8_t mask = (uint8_t)(1 << nesting->depth % 8);
	if (byte >= nesting->capacity) {
		uint8_t *more = take(opening, nesting->capacity * 2, 1);
		memcpy(more, nesting->bits, nesting->capacity);
		if (nesting->bits != nesting->few)
			drop(opening, nesting->bits);
		nesting->bits = more;
		nesting->capacity *= 2;
	}
	nesting->bits[byte] = (uint8_t)(is_object ? nesting->bits[byte] | mask : nesting->bits[byte] & ~mask);
	nesting->depth++;
}

static bool is_in_object(const struct nesting *nesting)
{
	size_t at = nesting->depth - 1;
	return nesting->bits[at / 8] >> at % 8 & 1;
}

// From behind the bracket that opens a list or an object to behind the one that closes it, without recursion.
static bool skip_nested(struct opening *opening, struct cursor *cursor, bool is_object)
{
	struct nesting nesting = {.capacity = sizeof nesting.few};
	struct json_value ignored;
	bool is_right = false, is_first = true;
	nesting.bits = nesting.few;
	push(opening, &nesting, is_object);
	while (nesting.depth > 0) {
		bool in_object = is_in_object(&nesting);
		if (json_accept(cursor, in_object ? '}' : ']')) {
			nesting.depth--;
			is_first = false;
			continue;
		}
		if (!is_first && !json_accept(cursor, ','))
			goto done;
		is_first = false;
		if (in_object && !json_read_key(cursor, &ignored))
			goto done;
		json_skip_space(cursor);
		if (cursor->at == cursor->end)
			goto done;
		if (*cursor->at == '[' || *cursor->at == '{') {
			push(opening, &nesting, *cursor->at++ == '{');
			is_first = true;
			check_abort(opening);
		} else if (json_read(opening, cursor).kind == JSON_BROKEN) {
			goto done;
		}
	}
	is_right = true;
done:
	if (nesting.bits != nesting.few)
		drop(opening, nesting.bits);
	return is_right;
}

bool json_read_key(struct cursor *cursor, struct json_value *key)
{
	return json_accept(cursor, '"') && read_string(cursor, key) && json_accept(cursor, ':');
}

struct json_value json_read(struct opening *opening, struct cursor *cursor)
{
	struct json_value value = {.kind = JSON_BROKEN};
	json_skip_space(cursor);
	if (cursor->at == cursor->end)
		return value;
	const uint8_t *start = cursor->at;
	bool is_right = false;
	switch (*start) {
	case '"':
		cursor->at++;
		is_right = read_string(cursor, &value);
		break;
	case '{':
	case '[':
		cursor->at++;
		is_right = skip_nested(opening, cursor, *start == '{');
		value.kind = *start == '{' ? JSON_OBJECT : JSON_LIST;
		value.raw = (struct text){start, (size_t)(cursor->at - start)};
		break;
	case 't':
	case 'f':
		is_right = *start == 't' ? read_word(cursor, "true", 4) : read_word(cursor, "false", 5);
		value.kind = JSON_BOOLEAN;
		break;
	case 'n':
		is_right = read_word(cursor, "null", 4);
		value.kind = JSON_NULL;
		break;
	default:
		is_right = (*start == '-' || (*start >= '0' && *start <= '9')) && read_number(opening, cursor, &value);
	}
	if (!is_right)
		value.kind = JSON_BROKEN;
	return value;
}

static uint32_t hex4(const uint8_t *at)
{
	uint32_t unit = 0;
	for (int i = 0; i < 4; i++)
		unit = unit << 4 | (uint32_t)(at[i] <= '9' ? at[i] - '0' : (at[i] | 0x20) - 'a' + 10);
	return unit;
}

// A \u escape at `*at`, and the second one of a pair; where it ends.
static uint8_t *put_escaped(uint8_t *out, const uint8_t **at, const uint8_t *end)
{
	uint32_t unit = hex4(*at + 2);
	*at += 6;
	if (unit < 0xd800 || unit > 0xdfff)
		return utf8_put(out, unit);
	if (unit < 0xdc00 && end - *at >= 6 && (*at)[0] == '\\' && (*at)[1] == 'u') {
		uint32_t second = hex4(*at + 2);
		if (second >= 0xdc00 && second <= 0xdfff) {
			*at += 6;
			return utf8_put(out, 0x10000 + ((unit - 0xd800) << 10) + (second - 0xdc00));
		}
	}
	if (unit >= 0xdc80 && unit <= 0xdcff) {
		*out = (uint8_t)(unit - 0xdc00);
		return out + 1;
	}
	return utf8_put(out, 0xfffd);
}

static bool is_exact(struct text raw)
{
	for (size_t at = 0, size; at < raw.size; at += size)
		if (raw.at[at] == '\\' || !(size = utf8_sequence(raw.at + at, raw.size - at)))
			return false;
	return true;
}

struct text json_text(struct opening *opening, const struct json_value *string)
{
	struct text raw = string->raw;
	if (string->is_plain || is_exact(raw))
		return raw;
	static const char escaped[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
	// A byte that is no UTF-8 becomes three.
	size_t capacity = raw.size;
	for (size_t i = 0; i < raw.size; i++)
		capacity += raw.at[i] >= 0x80 ? 2 : 0;
	uint8_t *bytes = take_bytes(opening, capacity), *out = bytes;
	const uint8_t *at = raw.at, *end = raw.at + raw.size;
	while (at < end) {
		size_t size;
		if (*at == '\\') {
			if (at[1] == 'u') {
				out = put_escaped(out, &at, end);
			} else {
				*out++ = (uint8_t)meant[strchr(escaped, at[1]) - escaped];
				at += 2;
			}
		} else if ((size = utf8_sequence(at, (size_t)(end - at)))) {
			memcpy(out, at, size);
			out += size;
			at += size;
		} else {
			at += utf8_damage(at, (size_t)(end - at));
			out = utf8_put(out, 0xfffd);
		}
	}
	return (struct text){bytes, (size_t)(out - bytes)};
}

bool json_integer(const struct json_value *value, int64_t *number)
{
	if (value->kind != JSON_NUMBER || !(fabs(value->number) <= MAX_SAFE_INTEGER) || trunc(value->number) != value->number)
		return false;
	*number = (int64_t)value->number;
	return true;
}
