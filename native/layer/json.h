// JSON (RFC 8259) as JSON.parse reads what TextDecoder makes of the bytes: strict, whatever the strings hold, of any depth.

#ifndef JSON_H
#define JSON_H

#include "opening.h"

struct cursor {
	const uint8_t *at;
	const uint8_t *end;
};

enum json_kind { JSON_BROKEN, JSON_NULL, JSON_BOOLEAN, JSON_NUMBER, JSON_STRING, JSON_LIST, JSON_OBJECT };

struct json_value {
	enum json_kind kind;
	// What stands there; of a string, what is between the quotes.
	struct text raw;
	// Of a string: ASCII without escapes.
	bool is_plain;
	double number;
};

// Reads one value, white space before it passed over; `kind` is JSON_BROKEN for what is none.
struct json_value json_read(struct opening *opening, struct cursor *cursor);

// Passes over white space.
void json_skip_space(struct cursor *cursor);

// Passes over white space, and over `byte` if that follows.
bool json_accept(struct cursor *cursor, uint8_t byte);

// Reads `"key" :`.
bool json_read_key(struct cursor *cursor, struct json_value *key);

// Where a string has its next quote, backslash or control character, from inside of it; `*is_ascii` becomes false for what
// is not.
const uint8_t *json_plain_end(const uint8_t *at, const uint8_t *end, bool *is_ascii);

// The bytes that a string stands for, as encodeByteText of src/lib/io/byte-text.ts gives them: a lone surrogate from U+DC80 to
// U+DCFF is a byte that is no UTF-8, any other is U+FFFD.
struct text json_text(struct opening *opening, const struct json_value *string);

// Whether it is a whole number that JavaScript knows exactly; then `*number` has it.
bool json_integer(const struct json_value *value, int64_t *number);

static inline bool text_is(struct text text, const char *expected, size_t size)
{
	return text.size == size && __builtin_memcmp(text.at, expected, size) == 0;
}

#define TEXT_IS(text, literal) text_is(text, literal, sizeof(literal) - 1)

#endif
