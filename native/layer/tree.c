#include "tree.h"

#include <string.h>

#include "base64.h"
#include "json.h"

// How overlayfs is told that a directory hides what lower layers have in it.
static const struct toc_xattr OPAQUE = {
	{(const uint8_t *)"trusted.overlay.opaque", 22},
	{(const uint8_t *)"eQ==", 4},
};

static void list_name(struct tree *tree, uint32_t name, uint32_t node)
{
	struct name *entry = &tree->names.list[name];
	// One that is there already keeps its turn.
	if (entry->shown == NONE) {
		struct tree_node *parent = &tree->nodes[entry->parent];
		if (parent->last == NONE)
			parent->first = name;
		else
			tree->names.list[parent->last].next = name;
		parent->last = name;
		parent->child_count++;
	}
	entry->shown = node;
}

// Shows a directory that nothing describes, and those above it first.
static void show_directory(struct opening *opening, struct tree *tree, uint32_t directory)
{
	if (tree->nodes[directory].is_shown)
		return;
	size_t count = 0, capacity = 0;
	uint32_t *hidden = NULL;
	for (uint32_t at = directory; !tree->nodes[at].is_shown; at = tree->names.list[tree->nodes[at].name].parent) {
		hidden = grow(opening, hidden, count, &capacity, sizeof *hidden);
		hidden[count++] = at;
	}
	while (count > 0) {
		uint32_t at = hidden[--count];
		tree->nodes[at].is_shown = true;
		list_name(tree, tree->nodes[at].name, at);
	}
	drop(opening, hidden);
}

static void show(struct opening *opening, struct tree *tree, uint32_t name, uint32_t node)
{
	show_directory(opening, tree, tree->names.list[name].parent);
	list_name(tree, name, node);
	tree->nodes[node].is_shown = true;
}

// Adds an extended attribute to a directory's own list: a value that is given anew takes the place of the one before.
static void add_xattr(struct opening *opening, struct tree *tree, uint32_t directory, struct toc_xattr added)
{
	struct tree_node *node = &tree->nodes[directory];
	uint32_t name = intern_name(opening, &tree->xattr_names, directory, added.name);
	struct toc_xattr *list = (struct toc_xattr *)node->xattrs;
	size_t capacity = node->xattr_capacity;
	if (tree->xattr_names.list[name].value != NONE) {
		list[tree->xattr_names.list[name].value].value = added.value;
		return;
	}
	list = grow(opening, list, node->xattr_count, &capacity, sizeof *list);
	node->xattrs = list;
	node->xattr_capacity = (uint32_t)capacity;
	tree->xattr_names.list[name].value = node->xattr_count;
	list[node->xattr_count++] = added;
	check_abort(opening);
}

// Adds those of an entry, or another one, to those that a directory has.
static void add_xattrs(struct opening *opening, struct tree *tree, uint32_t directory, const struct toc_xattr *added,
		       uint32_t count)
{
	struct tree_node *node = &tree->nodes[directory];
	if (count > 0 && node->xattr_capacity == 0) {
		const struct toc_xattr *borrowed = node->xattrs;
		uint32_t borrowed_count = node->xattr_count;
		node->xattrs = NULL;
		node->xattr_count = 0;
		for (uint32_t i = 0; i < borrowed_count; i++)
			add_xattr(opening, tree, directory, borrowed[i]);
	}
	for (uint32_t i = 0; i < count; i++)
		add_xattr(opening, tree, directory, added[i]);
}

// A directory that is described again keeps what is in it, and attributes that it is not given anew.
static void describe_again(struct opening *opening, struct tree *tree, uint32_t directory, const struct toc_entry *entry)
{
	struct tree_node *node = &tree->nodes[directory];
	node->entry = entry;
	if (node->xattr_count == 0) {
		node->xattrs = entry->xattrs;
		node->xattr_count = entry->xattr_count;
	} else {
		add_xattrs(opening, tree, directory, entry->xattrs, entry->xattr_count);
	}
}

static void show_entry(struct opening *opening, struct tree *tree, const struct layer_file *file, struct place place)
{
	struct tree_node *node = &tree->nodes[place.node];
	switch (place.role) {
	case ROLE_OPAQUE:
		show_directory(opening, tree, place.node);
		add_xattrs(opening, tree, place.node, &OPAQUE, 1);
		break;
	case ROLE_WHITEOUT:
		if (node->kind == NODE_WHITEOUT)
			show(opening, tree, place.name, place.node);
		break;
	case ROLE_NODE:
		// Of another entry, and no hard link, it is a directory that was there before.
		if (node->entry != file->entry && file->entry->type == TYPE_DIR)
			describe_again(opening, tree, place.node, file->entry);
		show(opening, tree, place.name, place.node);
		break;
	default:
		break;
	}
}

static void check_xattrs(struct opening *opening, const struct layer_index *index)
{
	for (size_t i = 0; i < index->count; i++) {
		const struct toc_entry *entry = index->files[i].entry;
		for (uint32_t j = 0; j < entry->xattr_count; j++)
			if (!is_base64(entry->xattrs[j].value))
				fail(opening, OPEN_CORRUPT, "Cannot read extended attribute %q: it is not base64",
				     &entry->xattrs[j].name);
	}
}

static bool is_trusted(const struct toc_xattr *xattr)
{
	static const char prefix[] = "trusted.";
	return xattr->name.size >= sizeof prefix - 1 && memcmp(xattr->name.at, prefix, sizeof prefix - 1) == 0;
}

// containerd sets none of these: overlayfs would take a layer's word for what lower layers have, and where.
static void drop_trusted(struct opening *opening, struct toc_entry *entry)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < entry->xattr_count; i++)
		kept += !is_trusted(&entry->xattrs[i]);
	if (kept == entry->xattr_count)
		return;
	struct toc_xattr *rest = kept > 0 ? take(opening, kept, sizeof *rest) : NULL;
	for (uint32_t i = 0, at = 0; i < entry->xattr_count; i++)
		if (!is_trusted(&entry->xattrs[i]))
			rest[at++] = entry->xattrs[i];
	entry->xattrs = rest;
	entry->xattr_count = kept;
}

struct tree make_tree(struct opening *opening, const struct layer_index *index)
{
	check_xattrs(opening, index);
	for (size_t i = 0; i < index->count; i++)
		drop_trusted(opening, index->files[i].entry);
	struct places places = create_places(opening);
	for (size_t i = 0; i < index->count; i++) {
		struct place place = place_entry(opening, &places, &index->files[i]);
		show_entry(opening, &places.tree, &index->files[i], place);
		check_abort(opening);
	}
	return places.tree;
}
