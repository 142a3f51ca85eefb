#include "opening.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "utf8.h"

// The header of a block; what follows it is aligned for everything.
struct block {
	_Alignas(max_align_t) struct block *next;
	struct block **link;
};

#define SPARE_SIZE (64 << 10)
#define MAX_QUOTED_UNITS 200

static void *take_block(struct opening *opening, size_t count, size_t item_size, bool zeroed)
{
	size_t size;
	if (__builtin_mul_overflow(count, item_size, &size) || __builtin_add_overflow(size, sizeof(struct block), &size))
		leave(opening, OPEN_NO_MEMORY);
	struct block *block = zeroed ? calloc(1, size) : malloc(size);
	if (!block)
		leave(opening, OPEN_NO_MEMORY);
	block->next = opening->blocks;
	block->link = &opening->blocks;
	if (block->next)
		block->next->link = &block->next;
	opening->blocks = block;
	return block + 1;
}

void *take(struct opening *opening, size_t count, size_t item_size)
{
	return take_block(opening, count, item_size, true);
}

void drop(struct opening *opening, void *memory)
{
	(void)opening;
	if (!memory)
		return;
	struct block *block = (struct block *)memory - 1;
	*block->link = block->next;
	if (block->next)
		block->next->link = block->link;
	free(block);
}

void drop_all(struct opening *opening)
{
	while (opening->blocks)
		drop(opening, opening->blocks + 1);
}

void *grow(struct opening *opening, void *items, size_t count, size_t *capacity, size_t item_size)
{
	if (count < *capacity)
		return items;
	size_t wanted;
	if (__builtin_mul_overflow(*capacity, (size_t)2, &wanted))
		leave(opening, OPEN_NO_MEMORY);
	if (wanted < 64)
		wanted = 64;
	void *more = take_block(opening, wanted, item_size, false);
	if (count > 0)
		memcpy(more, items, count * item_size);
	drop(opening, items);
	*capacity = wanted;
	return more;
}

void *take_bytes(struct opening *opening, size_t size)
{
	if (size > SPARE_SIZE / 8)
		return take_block(opening, size, 1, false);
	if (size > opening->spare_size || !opening->spare) {
		opening->spare = take_block(opening, SPARE_SIZE, 1, false);
		opening->spare_size = SPARE_SIZE;
	}
	void *bytes = opening->spare;
	opening->spare += size;
	opening->spare_size -= size;
	return bytes;
}

void *take_result(struct opening *opening, size_t count, size_t item_size)
{
	// Never of no bytes: NULL means that there is none.
	void *memory = calloc(count ? count : 1, item_size);
	if (!memory)
		leave(opening, OPEN_NO_MEMORY);
	return memory;
}

void check_abort(struct opening *opening)
{
	const atomic_uchar *aborted = opening->task->aborted;
	if ((opening->ticks++ & 255) == 0 && aborted && atomic_load_explicit(aborted, memory_order_relaxed))
		leave(opening, OPEN_ABORTED);
}

noreturn void leave(struct opening *opening, enum open_status status)
{
	opening->status = status;
	longjmp(opening->failed, 1);
}

// --- Messages --------------------------------------------------------------------------------------------------------

struct message {
	char *at;
	size_t size;
	size_t capacity;
	bool too_large;
};

static void append(struct message *message, const void *bytes, size_t size)
{
	if (message->too_large || size > SIZE_MAX / 4 - message->size) {
		message->too_large = true;
		return;
	}
	if (message->size + size > message->capacity) {
		size_t capacity = 2 * (message->size + size) + 64;
		char *more = realloc(message->at, capacity);
		if (!more) {
			message->too_large = true;
			return;
		}
		message->at = more;
		message->capacity = capacity;
	}
	if (size > 0)
		memcpy(message->at + message->size, bytes, size);
	message->size += size;
}

__attribute__((format(printf, 2, 3))) static void append_format(struct message *message, const char *format, ...)
{
	char text[352];
	va_list args;
	va_start(args, format);
	int size = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	append(message, text, size < 0 ? 0 : (size_t)size < sizeof text ? (size_t)size : sizeof text - 1);
}

// As JSON.stringify quotes the byte text: a byte that is no UTF-8 is a lone surrogate, U+DC00 and the byte.
static void append_quoted(struct message *message, struct text text, size_t max_units)
{
	static const char short_escapes[] = "\b\t\n\f\r\"\\";
	append(message, "\"", 1);
	for (size_t at = 0, units = 0; at < text.size && units < max_units;) {
		uint8_t byte = text.at[at];
		size_t size = utf8_sequence(text.at + at, text.size - at);
		const char *escape = byte == 0 ? NULL : strchr(short_escapes, byte);
		if (size == 0) {
			append_format(message, "\\u%04x", 0xdc00 + byte);
			size = 1;
		} else if (size == 4 && units + 1 == max_units) {
			// Cut in the middle of a pair.
			append_format(message, "\\u%04x", 0xd7c0 + (utf8_point(text.at + at, 4) >> 10));
		} else if (escape) {
			append_format(message, "\\%c", "btnfr\"\\"[escape - short_escapes]);
		} else if (byte < 0x20) {
			append_format(message, "\\u%04x", byte);
		} else {
			append(message, text.at + at, size);
		}
		at += size;
		units += size == 4 ? 2 : 1;
	}
	append(message, "\"", 1);
}

noreturn void fail(struct opening *opening, enum open_status status, const char *format, ...)
{
	struct message message = {0};
	va_list args;
	va_start(args, format);
	for (const char *at = format; *at; at++) {
		if (*at != '%') {
			append(&message, at, 1);
			continue;
		}
		switch (*++at) {
		case 's': {
			const char *text = va_arg(args, const char *);
			append(&message, text, strlen(text));
			break;
		}
		case 'w':
			append(&message, opening->task->where, opening->task->where_size);
			break;
		case 'q':
			append_quoted(&message, *va_arg(args, const struct text *), SIZE_MAX);
			break;
		case 'Q':
			append_quoted(&message, *va_arg(args, const struct text *), MAX_QUOTED_UNITS);
			break;
		case 'd':
			append_format(&message, "%" PRId64, va_arg(args, int64_t));
			break;
		case 'f':
			append_format(&message, "%.0f", va_arg(args, double));
			break;
		}
	}
	va_end(args);
	if (message.too_large || !message.at) {
		free(message.at);
		leave(opening, OPEN_NO_MEMORY);
	}
	opening->layer->message = message.at;
	opening->layer->message_size = message.size;
	leave(opening, status);
}

// --- Sorting ---------------------------------------------------------------------------------------------------------

void sort_indexes(struct opening *opening, uint32_t *indexes, size_t count,
		  bool (*in_order)(const void *context, uint32_t left, uint32_t right), const void *context)
{
	size_t sorted = 1;
	while (sorted < count && in_order(context, indexes[sorted - 1], indexes[sorted]))
		sorted++;
	if (sorted >= count)
		return;
	uint32_t *other = take(opening, count, sizeof *other);
	uint32_t *from = indexes, *to = other;
	for (size_t width = 1; width < count; width *= 2) {
		for (size_t start = 0; start < count; start += 2 * width) {
			size_t left = start, middle = start + width < count ? start + width : count;
			size_t right = middle, end = middle + width < count ? middle + width : count;
			for (size_t at = start; at < end; at++) {
				bool is_left = right == end || (left < middle && in_order(context, from[left], from[right]));
				to[at] = is_left ? from[left++] : from[right++];
			}
			check_abort(opening);
		}
		uint32_t *swapped = from;
		from = to;
		to = swapped;
	}
	if (from != indexes)
		memcpy(indexes, from, count * sizeof *indexes);
	drop(opening, other);
}
