// A layer's entries as a tree that overlayfs can stack: flat tables, a number for each inode. Places (places.c) are what the
// names of entries come to when a runtime unpacks them one after the other; the tree (tree.c) shows what then is there.

#ifndef TREE_H
#define TREE_H

#include "index.h"
#include "names.h"

enum node_kind { NODE_REG, NODE_DIR, NODE_SYMLINK, NODE_CHAR, NODE_BLOCK, NODE_FIFO, NODE_WHITEOUT };

// One inode. Several names may stand for it.
struct tree_node {
	// What describes it; NULL for a directory that nothing describes, and for a whiteout.
	const struct toc_entry *entry;
	// Those of the entry, unless a directory has been described several times or hides what lower layers have in it.
	const struct toc_xattr *xattrs;
	uint32_t xattr_count;
	// Of those of several entries: for how many there is room; 0 for those of one.
	uint32_t xattr_capacity;
	uint8_t kind;
	// Of a directory: whether the tree shows it. One that nothing describes is shown with the first thing in it.
	bool is_shown;
	// Of a directory: the name by which it is in another one; NONE for the root.
	uint32_t name;
	// Of a directory: its shown names, as they came.
	uint32_t first;
	uint32_t last;
	uint32_t child_count;
	// Of a file with contents: the block of the device at which they start. Of a symbolic link: its place among the links.
	uint32_t block;
};

// A symbolic link's target, cleaned: `..` goes with the name before it, `climbs` are those that no name is left for.
struct link {
	struct text path;
	uint32_t climbs;
	uint32_t steps;
	bool is_absolute;
};

struct tree {
	struct tree_node *nodes;
	size_t count;
	size_t capacity;
	// Below the numbers of directories; a name stands for a node.
	struct names names;
	// Below the numbers of directories that are described several times: extended attributes, by their names.
	struct names xattr_names;
};

#define ROOT_NODE 0

struct tree make_tree(struct opening *opening, const struct layer_index *index);

// A tree under way.
struct places {
	struct tree tree;
	struct link *links;
	size_t link_count;
	size_t link_capacity;
	uint64_t steps;
	size_t implied;
	// Directories by the paths by which they were found without symbolic links, below the number of times that something has
	// been replaced before; and the last one.
	struct names found;
	uint32_t replaced;
	struct text last_path;
	uint32_t last_parent;
	// Names of a path that are not there yet; and the names of the links on the way to a hard link's target.
	struct text *missing;
	size_t missing_count;
	size_t missing_capacity;
	uint32_t *way;
	size_t way_count;
	size_t way_capacity;
};

// Where an entry came to stand.
struct place {
	enum { ROLE_NOTHING, ROLE_NODE, ROLE_WHITEOUT, ROLE_OPAQUE } role;
	// The node that stands there, and its name; of an opaque mark the directory, and no name.
	uint32_t node;
	uint32_t name;
};

struct places create_places(struct opening *opening);

// Unpacks one more entry (LayerPlaces.place of src/lib/vfs/layer-places.ts).
struct place place_entry(struct opening *opening, struct places *places, const struct layer_file *file);

#endif
