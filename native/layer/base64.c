#include "base64.h"

// A sextet, or 64 for what is none.
static uint32_t sextet(uint8_t character)
{
	if (character >= 'A' && character <= 'Z')
		return character - 'A';
	if (character >= 'a' && character <= 'z')
		return character - 'a' + 26u;
	if (character >= '0' && character <= '9')
		return character - '0' + 52u;
	return character == '+' ? 62 : character == '/' ? 63 : 64;
}

bool is_base64(struct text text)
{
	if (text.size % 4 != 0)
		return false;
	size_t end = text.size;
	for (int i = 0; i < 2 && end > 0 && text.at[end - 1] == '='; i++)
		end--;
	for (size_t i = 0; i < end; i++)
		if (sextet(text.at[i]) == 64)
			return false;
	return true;
}

void decode_base64(struct text text, uint8_t *bytes)
{
	size_t size = base64_size(text), written = 0;
	for (size_t i = 0; i < text.size; i += 4) {
		uint32_t word = 0;
		for (size_t j = 0; j < 4; j++)
			word = word << 6 | (sextet(text.at[i + j]) & 63);
		for (int shift = 16; shift >= 0 && written < size; shift -= 8)
			bytes[written++] = (uint8_t)(word >> shift);
	}
}
