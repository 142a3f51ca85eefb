// One layer being opened: its memory, and the one way out when something is wrong. Every function that takes an `opening`
// may leave by that way, so that none has to hand an error on, and none may hold anything that is not taken from here.

#ifndef OPENING_H
#define OPENING_H

#include <setjmp.h>
#include <stdnoreturn.h>

#include "open-layer.h"

#define NONE UINT32_MAX

// Bytes that lie in the TOC or in memory of the opening. No NUL ends them.
struct text {
	const uint8_t *at;
	size_t size;
};

struct opening {
	const struct layer_task *task;
	struct opened_layer *layer;
	enum open_status status;
	jmp_buf failed;
	// All blocks that were taken and not dropped.
	struct block *blocks;
	// Small things that live as long as the opening are cut from here.
	uint8_t *spare;
	size_t spare_size;
	// Of hash tables: nobody outside can know which names collide.
	uint64_t key[2];
	unsigned ticks;
};

// Memory for `count` items, all zero; given back with everything else, or before by `drop`.
void *take(struct opening *opening, size_t count, size_t item_size);
void drop(struct opening *opening, void *memory);
void drop_all(struct opening *opening);

// Makes room for one more item in an array that was taken: doubles `*capacity` when `count` has reached it.
void *grow(struct opening *opening, void *items, size_t count, size_t *capacity, size_t item_size);

// A few bytes, not zero, until the end.
void *take_bytes(struct opening *opening, size_t size);

// As calloc, for what goes to the caller.
void *take_result(struct opening *opening, size_t count, size_t item_size);

// Leaves, if nobody wants the result any more. Cheap enough for every entry.
void check_abort(struct opening *opening);

// Leaves with a message: %s C string, %w the layer, %q struct text * in quotes as JSON has it, %Q the same but no more than
// 200 UTF-16 units of it, %d int64_t, %f double.
noreturn void fail(struct opening *opening, enum open_status status, const char *format, ...);
noreturn void leave(struct opening *opening, enum open_status status);

// Sorts indexes stably; `compare` says whether the left one must not come after the right one.
void sort_indexes(struct opening *opening, uint32_t *indexes, size_t count,
		  bool (*in_order)(const void *context, uint32_t left, uint32_t right), const void *context);

#endif
