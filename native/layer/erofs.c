#include "erofs.h"

#include <string.h>

#include "base64.h"
#include "device.h"
#include "json.h"

// See src/lib/erofs/on-disk.ts, encode-image.ts and limits.ts.
#define BLOCK_SIZE DEVICE_BLOCK_SIZE
#define BLOCK_BITS 12
#define SUPERBLOCK_OFFSET 1024
#define DEVICE_SLOT_OFFSET 2048
#define METADATA_OFFSET 4096
#define SLOT_SIZE 32
#define INODE_SIZE 64
#define DIRENT_SIZE 12
#define FLAT_PLAIN 0
#define FLAT_INLINE 2
#define XATTR_HEADER_SIZE 12
#define XATTR_ENTRY_SIZE 4
#define MAX_BLOCKS 0xffffffff
#define MAX_NAME_SIZE 255
#define MAX_TARGET_SIZE 4095
#define MAX_OWNER 0xffffffff
#define MAX_MAJOR 0xfff
#define MAX_MINOR 0xfffff
#define MAX_XATTR_NAME_SIZE 255
#define MAX_XATTR_VALUE_SIZE 0xffff
#define MAX_XATTRS_SIZE (12 + 4 * 0xfffe)

static const char REFUSED[] = "Cannot make an EROFS image: it cannot hold ";

// An inode on its way into the image.
struct inode {
	// Of the metadata, in bytes.
	uint64_t offset;
	// Of a directory's names, or a symbolic link's target.
	uint64_t contents;
	// Of what does not stand behind the inode.
	uint64_t first_block;
	uint64_t full_blocks;
	uint32_t node;
	uint32_t parent; // node
	uint32_t links;
	uint32_t xattrs_size;
	uint32_t inline_size;
	// Of a directory: where in `entries` its sorted names start.
	uint32_t first_entry;
};

struct image {
	const struct tree *tree;
	// In the order of their numbers, from 1.
	struct inode *inodes;
	size_t count;
	// For each node, its number less one; NONE.
	uint32_t *numbers;
	// Names of all directories, each directory's sorted, by their indexes; the two below.
	uint32_t *entries;
	size_t entry_count;
	uint8_t *bytes;
	uint64_t blocks;
};

// Stand for `.` and `..`.
#define SELF (NONE - 1)
#define PARENT (NONE - 2)

static struct text entry_name(const struct tree *tree, uint32_t entry)
{
	if (entry == SELF || entry == PARENT)
		return (struct text){(const uint8_t *)"..", entry == SELF ? 1 : 2};
	return tree->names.list[entry].text;
}

// --- Extended attributes ---------------------------------------------------------------------------------------------

// The number of the longest prefix that Linux knows, and its size; false for a name that it does not.
static bool xattr_prefix(struct text name, uint8_t *number, size_t *size)
{
	static const struct {
		const char *text;
		uint8_t number;
		bool is_whole;
	} prefixes[] = {
		{"system.posix_acl_access", 2, true}, {"system.posix_acl_default", 3, true},
		{"user.", 1, false}, {"trusted.", 4, false}, {"security.", 6, false},
	};
	for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
		*size = strlen(prefixes[i].text);
		*number = prefixes[i].number;
		bool fits = prefixes[i].is_whole ? name.size == *size : name.size > *size;
		if (fits && memcmp(name.at, prefixes[i].text, *size) == 0)
			return true;
	}
	return false;
}

// Adds one attribute to those at `out`, or NULL, which have `size` bytes; returns how many they have then.
static size_t put_xattr(struct opening *opening, struct text name, struct text base64, uint8_t *out, size_t size)
{
	uint8_t prefix;
	size_t prefix_size;
	if (!xattr_prefix(name, &prefix, &prefix_size))
		return size;
	size_t name_size = name.size - prefix_size, value_size = base64_size(base64);
	if (name_size > MAX_XATTR_NAME_SIZE || value_size > MAX_XATTR_VALUE_SIZE)
		fail(opening, OPEN_UNSUPPORTED, "%san extended attribute of %d bytes with a name of %d", REFUSED,
		     (int64_t)value_size, (int64_t)name_size);
	if (size == 0)
		size = XATTR_HEADER_SIZE;
	if (out) {
		uint8_t *at = out + size;
		at[0] = (uint8_t)name_size;
		at[1] = prefix;
		at[2] = (uint8_t)value_size;
		at[3] = (uint8_t)(value_size >> 8);
		memcpy(at + XATTR_ENTRY_SIZE, name.at + prefix_size, name_size);
		decode_base64(base64, at + XATTR_ENTRY_SIZE + name_size);
	}
	return size + (XATTR_ENTRY_SIZE + name_size + value_size + 3) / 4 * 4;
}

// The attributes of a node, written to `out` unless that is NULL; how many bytes they have.
static size_t put_xattrs(struct opening *opening, const struct tree_node *node, uint8_t *out)
{
	size_t size = 0;
	for (uint32_t i = 0; i < node->xattr_count; i++)
		size = put_xattr(opening, node->xattrs[i].name, node->xattrs[i].value, out, size);
	if (size > MAX_XATTRS_SIZE)
		fail(opening, OPEN_UNSUPPORTED, "%s%d bytes of extended attributes of one file", REFUSED, (int64_t)size);
	return size;
}

// --- Collecting ------------------------------------------------------------------------------------------------------

static void check_name(struct opening *opening, struct text name)
{
	if (name.size == 0 || name.size > MAX_NAME_SIZE)
		fail(opening, OPEN_UNSUPPORTED, "%sa name of %d bytes", REFUSED, (int64_t)name.size);
	if (TEXT_IS(name, ".") || TEXT_IS(name, "..") || memchr(name.at, '/', name.size) || memchr(name.at, 0, name.size))
		fail(opening, OPEN_UNSUPPORTED, "%sa name that no directory can have", REFUSED);
}

static void check_node(struct opening *opening, const struct tree_node *node)
{
	const struct toc_entry *entry = node->entry;
	if (!entry)
		return;
	for (int i = 0; i < 2; i++) {
		int64_t owner = i == 0 ? entry->uid : entry->gid;
		if (owner < 0 || owner > MAX_OWNER)
			fail(opening, OPEN_UNSUPPORTED, "%sa file of user or group %d", REFUSED, owner);
	}
	if (entry->dev_major > MAX_MAJOR || entry->dev_minor > MAX_MINOR)
		fail(opening, OPEN_UNSUPPORTED, "%sa device %d:%d", REFUSED, entry->dev_major, entry->dev_minor);
	if (node->kind == NODE_SYMLINK && entry->link.size > MAX_TARGET_SIZE)
		fail(opening, OPEN_UNSUPPORTED, "%sa symlink to a path of %d bytes", REFUSED, (int64_t)entry->link.size);
}

static bool entries_in_order(const void *context, uint32_t left, uint32_t right)
{
	const struct tree *tree = context;
	struct text one = entry_name(tree, left), other = entry_name(tree, right);
	int difference = memcmp(one.at, other.at, one.size < other.size ? one.size : other.size);
	return difference != 0 ? difference < 0 : one.size <= other.size;
}

// Sorts the names of a directory, and says how many bytes they take: blocks are full, but for the last one.
static void lay_out_directory(struct opening *opening, struct image *image, struct inode *inode)
{
	const struct tree *tree = image->tree;
	const struct tree_node *node = &tree->nodes[inode->node];
	uint32_t *entries = image->entries + image->entry_count;
	size_t count = 2, used = 0, blocks = 0;
	inode->first_entry = (uint32_t)image->entry_count;
	entries[0] = SELF;
	entries[1] = PARENT;
	for (uint32_t name = node->first; name != NONE; name = tree->names.list[name].next) {
		check_name(opening, tree->names.list[name].text);
		entries[count++] = name;
	}
	sort_indexes(opening, entries, count, entries_in_order, tree);
	for (size_t i = 0; i < count; i++) {
		size_t size = DIRENT_SIZE + entry_name(tree, entries[i]).size;
		if (used + size > BLOCK_SIZE) {
			blocks++;
			used = 0;
		}
		used += size;
	}
	image->entry_count += count;
	inode->contents = (uint64_t)blocks * BLOCK_SIZE + used;
}

static void add_inode(struct opening *opening, struct image *image, uint32_t node, uint32_t parent)
{
	const struct tree_node *described = &image->tree->nodes[node];
	if (image->numbers[node] != NONE) {
		image->inodes[image->numbers[node]].links++;
		return;
	}
	struct inode *inode = &image->inodes[image->count];
	*inode = (struct inode){.node = node, .parent = parent, .links = 1};
	if (described->kind == NODE_DIR)
		lay_out_directory(opening, image, inode);
	else if (described->kind == NODE_SYMLINK)
		inode->contents = described->entry->link.size;
	check_node(opening, described);
	inode->xattrs_size = (uint32_t)put_xattrs(opening, described, NULL);
	image->numbers[node] = (uint32_t)image->count++;
	check_abort(opening);
}

// Every inode once, directories before what is in them, breadth first; hard links counted.
static void collect(struct opening *opening, struct image *image)
{
	const struct tree *tree = image->tree;
	image->inodes = take(opening, tree->count, sizeof *image->inodes);
	image->numbers = take(opening, tree->count, sizeof *image->numbers);
	memset(image->numbers, 0xff, tree->count * sizeof *image->numbers);
	image->entries = take(opening, tree->names.count + 2 * tree->count, sizeof *image->entries);
	add_inode(opening, image, ROOT_NODE, ROOT_NODE);
	for (size_t i = 0; i < image->count; i++) {
		uint32_t node = image->inodes[i].node;
		if (tree->nodes[node].kind != NODE_DIR)
			continue;
		for (uint32_t name = tree->nodes[node].first; name != NONE; name = tree->names.list[name].next) {
			uint32_t child = tree->names.list[name].shown;
			add_inode(opening, image, child, node);
			// Each subdirectory's `..` is a link to its parent, and `.` to itself.
			image->inodes[i].links += tree->nodes[child].kind == NODE_DIR;
		}
		image->inodes[i].links++;
	}
}

// --- Placing ---------------------------------------------------------------------------------------------------------

static uint64_t round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

static bool fits_in_block(uint64_t start, uint64_t size)
{
	return start / BLOCK_SIZE == (start + size - 1) / BLOCK_SIZE;
}

// Gives each inode its offset, and blocks to what does not stand behind it; all sums are of sizes of things in memory.
static void place_inodes(struct image *image)
{
	uint64_t at = METADATA_OFFSET;
	for (size_t i = 0; i < image->count; i++) {
		struct inode *inode = &image->inodes[i];
		uint64_t fixed = INODE_SIZE + inode->xattrs_size, tail = inode->contents % BLOCK_SIZE;
		// A tail that cannot stand in one block with the end of its inode gets a block of its own.
		if (tail > BLOCK_SIZE - SLOT_SIZE * 2)
			tail = 0;
		at = round_up(at, SLOT_SIZE);
		if (tail > 0) {
			uint64_t start = at + fixed;
			// Move on until the tail starts a block or ends within one.
			if (!fits_in_block(start, tail))
				at = round_up(round_up(start, BLOCK_SIZE) - fixed, SLOT_SIZE);
			if (!fits_in_block(at + fixed, tail))
				tail = 0;
		} else if (!fits_in_block(at, INODE_SIZE)) {
			at = round_up(at, BLOCK_SIZE);
		}
		inode->offset = at;
		inode->inline_size = (uint32_t)tail;
		inode->full_blocks = (inode->contents - tail + BLOCK_SIZE - 1) / BLOCK_SIZE;
		at += fixed + tail;
	}
	uint64_t next = round_up(at, BLOCK_SIZE) / BLOCK_SIZE;
	for (size_t i = 0; i < image->count; i++) {
		image->inodes[i].first_block = next;
		next += image->inodes[i].full_blocks;
	}
	image->blocks = next;
}

// --- Writing ---------------------------------------------------------------------------------------------------------

static void put16(uint8_t *at, uint64_t value)
{
	at[0] = (uint8_t)value;
	at[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *at, uint64_t value)
{
	put16(at, value);
	put16(at + 2, value >> 16);
}

static void put64(uint8_t *at, uint64_t value)
{
	put32(at, value);
	put32(at + 4, value >> 32);
}

static uint64_t nid_of(const struct inode *inode)
{
	return (inode->offset - METADATA_OFFSET) / SLOT_SIZE;
}

static void put_superblock(const struct image *image, uint64_t device_blocks)
{
	uint8_t *at = image->bytes + SUPERBLOCK_OFFSET, *slot = image->bytes + DEVICE_SLOT_OFFSET;
	put32(at, 0xe0f5e1e2);
	put32(at + 8, 2); // feature_compat: mtime
	at[12] = BLOCK_BITS;
	put16(at + 14, nid_of(&image->inodes[0]));
	put64(at + 16, image->count);
	put32(at + 36, image->blocks);
	put32(at + 40, METADATA_OFFSET / BLOCK_SIZE);
	put32(at + 80, 8); // feature_incompat: a device table
	put16(at + 86, 1);
	put16(at + 88, DEVICE_SLOT_OFFSET / 128);
	put32(slot + 64, device_blocks);
	put32(slot + 68, image->blocks);
}

static const struct {
	uint16_t mode;
	uint8_t dirent;
} KINDS[] = {
	[NODE_REG] = {0100000, 1}, [NODE_DIR] = {0040000, 2}, [NODE_CHAR] = {0020000, 3},
	[NODE_BLOCK] = {0060000, 4}, [NODE_FIFO] = {0010000, 5}, [NODE_SYMLINK] = {0120000, 7},
	// What overlayfs takes for one: a character device 0:0.
	[NODE_WHITEOUT] = {0020000, 3},
};

// What nothing describes: a directory as every unpacker makes missing parents, and a whiteout.
static const struct toc_entry IMPLIED_DIRECTORY = {.mode = 0755}, WHITEOUT = {.mode = 0};

static uint64_t start_block_of(const struct image *image, const struct inode *inode, const struct toc_entry *entry)
{
	const struct tree_node *node = &image->tree->nodes[inode->node];
	uint64_t major = (uint64_t)entry->dev_major, minor = (uint64_t)entry->dev_minor;
	if (node->kind == NODE_CHAR || node->kind == NODE_BLOCK || node->kind == NODE_WHITEOUT)
		return (minor & 0xff) | major << 8 | (minor & ~(uint64_t)0xff) << 12;
	if (node->kind != NODE_REG)
		return inode->first_block;
	return entry->size > 0 ? image->blocks + node->block : 0;
}

static void put_directory_block(const struct image *image, const struct inode *inode, uint8_t *at, const uint32_t *entries,
				size_t count)
{
	size_t name_offset = count * DIRENT_SIZE;
	for (size_t i = 0; i < count; i++) {
		uint32_t node = entries[i] == SELF ? inode->node :
				entries[i] == PARENT ? inode->parent : image->tree->names.list[entries[i]].shown;
		struct text name = entry_name(image->tree, entries[i]);
		uint8_t *dirent = at + i * DIRENT_SIZE;
		put64(dirent, nid_of(&image->inodes[image->numbers[node]]));
		put16(dirent + 8, name_offset);
		dirent[10] = KINDS[image->tree->nodes[node].kind].dirent;
		memcpy(at + name_offset, name.at, name.size);
		name_offset += name.size;
	}
}

static uint8_t *block_at(const struct image *image, const struct inode *inode, size_t index)
{
	if (index < inode->full_blocks)
		return image->bytes + (inode->first_block + index) * BLOCK_SIZE;
	return image->bytes + inode->offset + INODE_SIZE + inode->xattrs_size;
}

static void put_directory(const struct image *image, const struct inode *inode)
{
	const uint32_t *entries = image->entries + inode->first_entry;
	size_t count = image->tree->nodes[inode->node].child_count + 2, used = 0, first = 0, block = 0;
	for (size_t i = 0; i < count; i++) {
		size_t size = DIRENT_SIZE + entry_name(image->tree, entries[i]).size;
		if (used + size > BLOCK_SIZE) {
			put_directory_block(image, inode, block_at(image, inode, block++), entries + first, i - first);
			first = i;
			used = 0;
		}
		used += size;
	}
	put_directory_block(image, inode, block_at(image, inode, block), entries + first, count - first);
}

static void put_inode(struct opening *opening, const struct image *image, size_t index)
{
	const struct inode *inode = &image->inodes[index];
	const struct tree_node *node = &image->tree->nodes[inode->node];
	const struct toc_entry *entry = node->entry ? node->entry : node->kind == NODE_DIR ? &IMPLIED_DIRECTORY : &WHITEOUT;
	uint8_t *at = image->bytes + inode->offset;
	// Linux gives every symbolic link this mode, and no way to change it.
	uint16_t mode = node->kind == NODE_SYMLINK ? 0777 : entry->mode;
	put16(at, 1 | (inode->inline_size > 0 ? FLAT_INLINE : FLAT_PLAIN) << 1); // extended
	put16(at + 2, inode->xattrs_size == 0 ? 0 : (inode->xattrs_size - XATTR_HEADER_SIZE) / 4 + 1);
	put16(at + 4, KINDS[node->kind].mode | mode);
	put64(at + 8, node->kind == NODE_REG ? (uint64_t)entry->size : inode->contents);
	put32(at + 16, start_block_of(image, inode, entry));
	put32(at + 20, index + 1);
	put32(at + 24, (uint64_t)entry->uid);
	put32(at + 28, (uint64_t)entry->gid);
	put64(at + 32, (uint64_t)entry->mtime_seconds);
	put32(at + 40, entry->mtime_nanoseconds);
	put32(at + 44, inode->links);
	if (inode->xattrs_size > 0)
		put_xattrs(opening, node, at + INODE_SIZE);
	if (node->kind == NODE_DIR) {
		put_directory(image, inode);
	} else if (node->kind == NODE_SYMLINK && entry->link.size > 0) {
		// It is shorter than a block.
		memcpy(block_at(image, inode, 0), entry->link.at, entry->link.size);
	}
}

void encode_erofs(struct opening *opening, const struct tree *tree, uint64_t device_size)
{
	struct image image = {.tree = tree};
	collect(opening, &image);
	place_inodes(&image);
	uint64_t device_blocks = (device_size + BLOCK_SIZE - 1) / BLOCK_SIZE;
	if (image.blocks + device_blocks > MAX_BLOCKS)
		fail(opening, OPEN_UNSUPPORTED, "Cannot make an EROFS image: %d bytes of data need too many blocks",
		     (int64_t)device_size);
	opening->layer->image = image.bytes = take_result(opening, image.blocks, BLOCK_SIZE);
	opening->layer->image_size = image.blocks * BLOCK_SIZE;
	put_superblock(&image, device_blocks);
	for (size_t i = 0; i < image.count; i++) {
		put_inode(opening, &image, i);
		check_abort(opening);
	}
}
