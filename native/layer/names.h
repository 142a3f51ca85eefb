// A table of names, each below something that has a number: one hash table for all directories of a tree. Its hash
// (SipHash-1-3) has a secret key, so that nobody can choose names that collide.

#ifndef NAMES_H
#define NAMES_H

#include "opening.h"

// A name. The rest is the table's user's: what it stands for, what of that the tree shows, and the next shown name of its
// directory. All are NONE at first.
struct name {
	struct text text;
	uint32_t parent;
	uint32_t value;
	uint32_t shown;
	uint32_t next;
};

// Of the hash table: an index of the list, or NONE, and the hash of the name that is there.
struct slot {
	uint32_t index;
	uint32_t hash;
};

struct names {
	struct name *list;
	size_t count;
	size_t capacity;
	// As many as a power of two, or none at all.
	struct slot *slots;
	size_t slot_count;
};

// The index of a name; NONE when it is not there.
uint32_t find_name(const struct opening *opening, const struct names *names, uint32_t parent, struct text text);

// The index of a name, which is added when it is not there.
uint32_t intern_name(struct opening *opening, struct names *names, uint32_t parent, struct text text);

#endif
