#include "names.h"

#include <string.h>

static inline uint64_t rotate(uint64_t value, int by)
{
	return value << by | value >> (64 - by);
}

static inline void sip_round(uint64_t v[4])
{
	v[0] += v[1], v[1] = rotate(v[1], 13) ^ v[0], v[0] = rotate(v[0], 32);
	v[2] += v[3], v[3] = rotate(v[3], 16) ^ v[2];
	v[0] += v[3], v[3] = rotate(v[3], 21) ^ v[0];
	v[2] += v[1], v[1] = rotate(v[1], 17) ^ v[2], v[2] = rotate(v[2], 32);
}

// SipHash-1-3 of a name, its parent's number mixed into the key.
static uint32_t hash_of(const struct opening *opening, uint32_t parent, struct text text)
{
	uint64_t k0 = opening->key[0] ^ parent, k1 = opening->key[1];
	uint64_t v[4] = {k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573};
	const uint8_t *at = text.at;
	size_t left = text.size;
	uint64_t word;
	for (; left >= 8; at += 8, left -= 8) {
		memcpy(&word, at, 8);
		v[3] ^= word;
		sip_round(v);
		v[0] ^= word;
	}
	word = (uint64_t)text.size << 56;
	for (size_t i = 0; i < left; i++)
		word |= (uint64_t)at[i] << 8 * i;
	v[3] ^= word;
	sip_round(v);
	v[0] ^= word;
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(v);
	return (uint32_t)(v[0] ^ v[1] ^ v[2] ^ v[3]);
}

// The slot in which the name is, or the empty one in which it would be.
static struct slot *slot_of(const struct names *names, uint32_t parent, struct text text, uint32_t hash)
{
	size_t mask = names->slot_count - 1;
	for (size_t at = hash & mask;; at = (at + 1) & mask) {
		struct slot *slot = &names->slots[at];
		if (slot->index == NONE)
			return slot;
		if (slot->hash != hash)
			continue;
		const struct name *name = &names->list[slot->index];
		if (name->parent == parent && name->text.size == text.size && memcmp(name->text.at, text.at, text.size) == 0)
			return slot;
	}
}

static void make_slots(struct opening *opening, struct names *names, size_t count)
{
	struct slot *slots = take(opening, count, sizeof *slots);
	memset(slots, 0xff, count * sizeof *slots);
	for (size_t i = 0; i < names->slot_count; i++) {
		if (names->slots[i].index == NONE)
			continue;
		size_t at = names->slots[i].hash & (count - 1);
		while (slots[at].index != NONE)
			at = (at + 1) & (count - 1);
		slots[at] = names->slots[i];
	}
	drop(opening, names->slots);
	names->slots = slots;
	names->slot_count = count;
}

uint32_t find_name(const struct opening *opening, const struct names *names, uint32_t parent, struct text text)
{
	if (names->count == 0)
		return NONE;
	return slot_of(names, parent, text, hash_of(opening, parent, text))->index;
}

uint32_t intern_name(struct opening *opening, struct names *names, uint32_t parent, struct text text)
{
	if (2 * names->count >= names->slot_count)
		make_slots(opening, names, names->slot_count ? 2 * names->slot_count : 64);
	uint32_t hash = hash_of(opening, parent, text);
	struct slot *slot = slot_of(names, parent, text, hash);
	if (slot->index != NONE)
		return slot->index;
	if (names->count >= NONE - 1)
		leave(opening, OPEN_NO_MEMORY);
	names->list = grow(opening, names->list, names->count, &names->capacity, sizeof *names->list);
	names->list[names->count] = (struct name){text, parent, NONE, NONE, NONE};
	*slot = (struct slot){(uint32_t)names->count, hash};
	return (uint32_t)names->count++;
}
