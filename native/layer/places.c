#include <string.h>

#include "device.h"
#include "json.h"
#include "path.h"
#include "tree.h"

// See src/lib/vfs/layer-places.ts for what these are derived from.
#define MAX_LINKS 255
#define MAX_LINK_STEPS 20000000
#define MAX_IMPLIED_DIRECTORIES 500000

noreturn static void misplaced(struct opening *opening, struct text name, const char *problem)
{
	fail(opening, OPEN_CORRUPT, "Cannot place %Q of a layer: %s", &name, problem);
}

static uint32_t add_node(struct opening *opening, struct tree *tree, enum node_kind kind, const struct toc_entry *entry)
{
	if (tree->count >= NONE - 3)
		leave(opening, OPEN_NO_MEMORY);
	tree->nodes = grow(opening, tree->nodes, tree->count, &tree->capacity, sizeof *tree->nodes);
	tree->nodes[tree->count] = (struct tree_node){
		.entry = entry, .kind = (uint8_t)kind, .name = NONE, .first = NONE, .last = NONE,
		.xattrs = entry ? entry->xattrs : NULL, .xattr_count = entry ? entry->xattr_count : 0,
	};
	return (uint32_t)tree->count++;
}

struct places create_places(struct opening *opening)
{
	struct places places = {.last_path = {(const uint8_t *)"", 0}, .last_parent = ROOT_NODE};
	add_node(opening, &places.tree, NODE_DIR, NULL);
	places.tree.nodes[ROOT_NODE].is_shown = true;
	return places;
}

static uint32_t add_link(struct opening *opening, struct places *places, struct text target)
{
	struct link link = {.steps = 1, .is_absolute = target.size > 0 && target.at[0] == '/'};
	for (size_t i = 0; i < target.size; i++)
		link.steps += target.at[i] == '/';
	link.path = clean_path(opening, target, &link.climbs);
	places->links = grow(opening, places->links, places->link_count, &places->link_capacity, sizeof *places->links);
	places->links[places->link_count] = link;
	return (uint32_t)places->link_count++;
}

// The directory in which one is; the root is in itself.
static uint32_t parent_of(const struct tree *tree, uint32_t directory)
{
	uint32_t name = tree->nodes[directory].name;
	return name == NONE ? ROOT_NODE : tree->names.list[name].parent;
}

static void add_missing(struct opening *opening, struct places *places, struct text part)
{
	places->missing = grow(opening, places->missing, places->missing_count, &places->missing_capacity, sizeof *places->missing);
	places->missing[places->missing_count++] = part;
}

// Follows symbolic links in all of `path`, within the root, as far as there is something: what is not there is then in
// `missing`, and the links' names in `way`.
static uint32_t resolve(struct opening *opening, struct places *places, struct text path, struct text name)
{
	const struct tree *tree = &places->tree;
	// What is left of the path and of each link that is being followed.
	struct text pending[MAX_LINKS + 1] = {path};
	size_t depth = path.size > 0;
	uint32_t directory = ROOT_NODE;
	places->missing_count = 0;
	places->way_count = 0;
	while (depth > 0) {
		struct text part = next_component(&pending[depth - 1]);
		if (pending[depth - 1].size == 0)
			depth--;
		uint32_t found = places->missing_count > 0 ? NONE : find_name(opening, &tree->names, directory, part);
		uint32_t node = found == NONE ? NONE : tree->names.list[found].value;
		if (node == NONE || tree->nodes[node].kind == NODE_WHITEOUT) {
			add_missing(opening, places, part);
			continue;
		}
		if (tree->nodes[node].kind == NODE_DIR) {
			directory = node;
			continue;
		}
		if (tree->nodes[node].kind != NODE_SYMLINK)
			misplaced(opening, name, "it is below a file");
		if (places->way_count == MAX_LINKS)
			misplaced(opening, name, "the symbolic links on the way form a loop");
		places->way = grow(opening, places->way, places->way_count, &places->way_capacity, sizeof *places->way);
		places->way[places->way_count++] = found;
		struct link link = places->links[tree->nodes[node].block];
		places->steps += link.steps;
		if (places->steps > MAX_LINK_STEPS)
			fail(opening, OPEN_UNSUPPORTED, "Cannot place a layer: its symbolic links take too long to follow");
		if (link.is_absolute)
			directory = ROOT_NODE;
		for (uint32_t count = link.climbs; count > 0 && directory != ROOT_NODE; count--)
			directory = parent_of(tree, directory);
		if (link.path.size > 0)
			pending[depth++] = link.path;
		check_abort(opening);
	}
	return directory;
}

// The directory that `path` leads to, made where it is missing.
static uint32_t make_parent(struct opening *opening, struct places *places, struct text path, struct text name)
{
	struct text last = places->last_path;
	if (path.size == last.size && (path.size == 0 || memcmp(path.at, last.at, path.size) == 0))
		return places->last_parent;
	uint32_t known = find_name(opening, &places->found, places->replaced, path);
	if (known != NONE) {
		places->last_path = path;
		return places->last_parent = places->found.list[known].value;
	}
	uint32_t directory = resolve(opening, places, path, name);
	for (size_t i = 0; i < places->missing_count; i++) {
		if (++places->implied > MAX_IMPLIED_DIRECTORIES)
			fail(opening, OPEN_UNSUPPORTED, "Cannot use a layer that does not describe more than %d of its directories",
			     (int64_t)MAX_IMPLIED_DIRECTORIES);
		uint32_t child = intern_name(opening, &places->tree.names, directory, places->missing[i]);
		uint32_t node = add_node(opening, &places->tree, NODE_DIR, NULL);
		places->tree.nodes[node].name = child;
		places->tree.names.list[child].value = node;
		directory = node;
	}
	if (places->way_count == 0) {
		places->last_path = path;
		places->last_parent = directory;
		known = intern_name(opening, &places->found, places->replaced, path);
		places->found.list[known].value = directory;
	}
	return directory;
}

static bool is_at_or_below(struct opening *opening, const struct tree *tree, uint32_t name, uint32_t top)
{
	for (; name != NONE; name = tree->nodes[tree->names.list[name].parent].name) {
		if (name == top)
			return true;
		check_abort(opening);
	}
	return false;
}

// The node of which a hard link is another name. `existing` is the name that stands at its place, which is removed before.
static uint32_t link_target(struct opening *opening, struct places *places, const struct toc_entry *entry, uint32_t existing)
{
	const struct tree *tree = &places->tree;
	struct text directory_path, base;
	uint32_t ignored;
	if (entry->link.size > 0 && memchr(entry->link.at, 0, entry->link.size))
		misplaced(opening, entry->link, "it has a NUL");
	struct text path = clean_path(opening, entry->link, &ignored);
	if (path.size == 0)
		misplaced(opening, entry->name, "it is a hard link to the root");
	split_path(path, &directory_path, &base);
	uint32_t directory = resolve(opening, places, directory_path, entry->name);
	uint32_t target = places->missing_count > 0 ? NONE : find_name(opening, &tree->names, directory, base);
	uint32_t node = target == NONE ? NONE : tree->names.list[target].value;
	if (node == NONE || tree->nodes[node].kind == NODE_WHITEOUT)
		fail(opening, OPEN_CORRUPT, "Cannot place %Q of a layer: it is a hard link to %Q, which is not there before it",
		     &entry->name, &entry->link);
	if (tree->nodes[node].kind == NODE_DIR)
		misplaced(opening, entry->name, "it is a hard link to a directory");
	bool takes_place = existing != NONE && is_at_or_below(opening, tree, target, existing);
	for (size_t i = 0; existing != NONE && i < places->way_count; i++)
		takes_place = takes_place || is_at_or_below(opening, tree, places->way[i], existing);
	if (takes_place)
		misplaced(opening, entry->name, "it takes the place of what it is a hard link to");
	return node;
}

static uint32_t new_node(struct opening *opening, struct places *places, const struct layer_file *file)
{
	static const enum node_kind kinds[TYPE_COUNT] = {
		[TYPE_REG] = NODE_REG, [TYPE_DIR] = NODE_DIR, [TYPE_SYMLINK] = NODE_SYMLINK, [TYPE_CHAR] = NODE_CHAR,
		[TYPE_BLOCK] = NODE_BLOCK, [TYPE_FIFO] = NODE_FIFO,
	};
	uint32_t node = add_node(opening, &places->tree, kinds[file->entry->type], file->entry);
	places->tree.nodes[node].block = file->entry->type == TYPE_SYMLINK
						  ? add_link(opening, places, file->entry->link)
						  : (uint32_t)(file->device_offset / DEVICE_BLOCK_SIZE);
	return node;
}

// Puts what an entry is at its place. What was there is removed, but for a directory under a directory.
static struct place put(struct opening *opening, struct places *places, const struct layer_file *file, uint32_t parent,
			struct text base)
{
	struct tree *tree = &places->tree;
	uint32_t name = intern_name(opening, &tree->names, parent, base), existing = tree->names.list[name].value;
	if (existing != NONE && file->entry->type == TYPE_DIR && tree->nodes[existing].kind == NODE_DIR)
		return (struct place){ROLE_NODE, existing, name};
	bool was_directory = existing != NONE && tree->nodes[existing].kind == NODE_DIR;
	uint32_t node = file->entry->type == TYPE_HARDLINK
				? link_target(opening, places, file->entry, existing == NONE ? NONE : name)
				: new_node(opening, places, file);
	if (tree->nodes[node].kind == NODE_DIR)
		tree->nodes[node].name = name;
	tree->names.list[name].value = node;
	// Directories that have been found may be below one that is gone.
	if (was_directory) {
		places->replaced++;
		places->last_path.size = 0;
		places->last_parent = ROOT_NODE;
	}
	return (struct place){ROLE_NODE, node, name};
}

// Of AUFS's own files, which runtimes skip.
#define AUFS_PREFIX ".wh..wh."
#define WHITEOUT_PREFIX ".wh."
#define OPAQUE_MARKER ".wh..wh..opq"
#define STARTS_WITH(text, prefix) ((text).size >= sizeof(prefix) - 1 && memcmp((text).at, prefix, sizeof(prefix) - 1) == 0)

struct place place_entry(struct opening *opening, struct places *places, const struct layer_file *file)
{
	struct tree *tree = &places->tree;
	struct text name = file->entry->name, directory, base;
	if (name.size > 0 && memchr(name.at, 0, name.size))
		misplaced(opening, name, "it has a NUL");
	if (file->path.size == 0)
		return (struct place){0};
	split_path(file->path, &directory, &base);
	bool is_hiding = STARTS_WITH(base, WHITEOUT_PREFIX);
	struct text hidden = base;
	if (is_hiding) {
		hidden.at += sizeof WHITEOUT_PREFIX - 1;
		hidden.size -= sizeof WHITEOUT_PREFIX - 1;
		if (hidden.size == 0 || TEXT_IS(hidden, ".") || TEXT_IS(hidden, ".."))
			misplaced(opening, name, "it hides no name");
	}
	uint32_t parent = make_parent(opening, places, directory, name);
	if (TEXT_IS(base, OPAQUE_MARKER))
		return (struct place){ROLE_OPAQUE, parent, NONE};
	if (STARTS_WITH(base, AUFS_PREFIX))
		return (struct place){0};
	if (!is_hiding)
		return put(opening, places, file, parent, base);
	// A whiteout speaks of lower layers, so what the layer itself has there stays.
	uint32_t place = intern_name(opening, &tree->names, parent, hidden);
	if (tree->names.list[place].value == NONE) {
		uint32_t node = add_node(opening, tree, NODE_WHITEOUT, NULL);
		tree->names.list[place].value = node;
	}
	return (struct place){ROLE_WHITEOUT, tree->names.list[place].value, place};
}
