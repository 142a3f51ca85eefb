#include "path.h"

#include <string.h>

// Whether the name needs no rewriting: no component is empty, `.` or `..`.
static bool is_clean(struct text name)
{
	size_t start = 0;
	for (size_t at = 0; at <= name.size; at++) {
		if (at < name.size && name.at[at] != '/')
			continue;
		size_t size = at - start;
		if (size == 0 || (size <= 2 && name.at[start] == '.' && name.at[at - 1] == '.'))
			return false;
		start = at + 1;
	}
	return true;
}

struct text next_component(struct text *rest)
{
	const uint8_t *slash = memchr(rest->at, '/', rest->size);
	struct text component = {rest->at, slash ? (size_t)(slash - rest->at) : rest->size};
	size_t passed = component.size + (slash != NULL);
	rest->at += passed;
	rest->size -= passed;
	return component;
}

struct text clean_path(struct opening *opening, struct text name, uint32_t *climbs)
{
	*climbs = 0;
	struct text rest = name;
	if (rest.size > 0 && rest.at[rest.size - 1] == '/')
		rest.size--;
	if (is_clean(rest))
		return rest;
	uint8_t *bytes = take_bytes(opening, name.size);
	size_t size = 0;
	while (rest.size > 0) {
		struct text part = next_component(&rest);
		bool is_up = part.size == 2 && part.at[0] == '.' && part.at[1] == '.';
		if (part.size == 0 || (part.size == 1 && part.at[0] == '.'))
			continue;
		if (is_up) {
			*climbs += size == 0;
			while (size > 0 && bytes[size - 1] != '/')
				size--;
			size -= size > 0;
			continue;
		}
		if (size > 0)
			bytes[size++] = '/';
		memcpy(bytes + size, part.at, part.size);
		size += part.size;
	}
	return (struct text){bytes, size};
}

void split_path(struct text path, struct text *directory, struct text *base)
{
	const uint8_t *slash = memrchr(path.at, '/', path.size);
	size_t start = slash ? (size_t)(slash + 1 - path.at) : 0;
	*directory = (struct text){path.at, slash ? start - 1 : 0};
	*base = (struct text){path.at + start, path.size - start};
}
