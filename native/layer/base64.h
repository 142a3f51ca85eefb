// Base64 (RFC 4648 section 4) as src/lib/io/base64.ts reads it.

#ifndef BASE64_H
#define BASE64_H

#include "opening.h"

bool is_base64(struct text text);

// How many bytes base64 stands for.
static inline size_t base64_size(struct text text)
{
	size_t padding = text.size > 0 && text.at[text.size - 1] == '=';
	padding += padding && text.at[text.size - 2] == '=';
	return text.size / 4 * 3 - padding;
}

// Writes them.
void decode_base64(struct text text, uint8_t *bytes);

#endif
