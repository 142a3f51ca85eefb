// UTF-8 (RFC 3629), and what decoders make of bytes that are none.

#ifndef UTF8_H
#define UTF8_H

#include <stddef.h>
#include <stdint.h>

// How many bytes the sequence at `bytes` has; 0 when there is no valid one. `size` is at least 1.
static inline size_t utf8_sequence(const uint8_t *bytes, size_t size)
{
	uint8_t lead = bytes[0];
	if (lead < 0x80)
		return 1;
	size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
	if (lead < 0xc2 || lead > 0xf4 || length > size)
		return 0;
	uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
	uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
	if (bytes[1] < low || bytes[1] > high)
		return 0;
	for (size_t at = 2; at < length; at++)
		if ((bytes[at] & 0xc0) != 0x80)
			return 0;
	return length;
}

// How many bytes at `bytes`, where there is no valid sequence, decoders replace by one U+FFFD (WHATWG Encoding): the longest
// beginning of a valid sequence, or one byte.
static inline size_t utf8_damage(const uint8_t *bytes, size_t size)
{
	uint8_t lead = bytes[0];
	if (lead < 0xc2 || lead > 0xf4)
		return 1;
	size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
	uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
	uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
	size_t at = 1;
	while (at < length && at < size && bytes[at] >= low && bytes[at] <= high) {
		at++;
		low = 0x80;
		high = 0xbf;
	}
	return at;
}

// The code point of a valid sequence of `length` bytes.
static inline uint32_t utf8_point(const uint8_t *bytes, size_t length)
{
	uint32_t point = length == 1 ? bytes[0] : bytes[0] & (0x7fu >> length);
	for (size_t at = 1; at < length; at++)
		point = point << 6 | (bytes[at] & 0x3f);
	return point;
}

// Writes a code point that is no surrogate; returns where it ends.
static inline uint8_t *utf8_put(uint8_t *at, uint32_t point)
{
	if (point < 0x80) {
		*at++ = (uint8_t)point;
	} else if (point < 0x800) {
		*at++ = (uint8_t)(0xc0 | point >> 6);
		*at++ = (uint8_t)(0x80 | (point & 0x3f));
	} else if (point < 0x10000) {
		*at++ = (uint8_t)(0xe0 | point >> 12);
		*at++ = (uint8_t)(0x80 | (point >> 6 & 0x3f));
		*at++ = (uint8_t)(0x80 | (point & 0x3f));
	} else {
		*at++ = (uint8_t)(0xf0 | point >> 18);
		*at++ = (uint8_t)(0x80 | (point >> 12 & 0x3f));
		*at++ = (uint8_t)(0x80 | (point >> 6 & 0x3f));
		*at++ = (uint8_t)(0x80 | (point & 0x3f));
	}
	return at;
}

#endif
