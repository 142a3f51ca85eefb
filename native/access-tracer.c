// access-tracer DIRECTORY: says which files of the file system that is mounted at DIRECTORY are opened, read or executed.
//
// It marks the whole file system (FAN_MARK_FILESYSTEM), not the mount: a container's root is a bind mount in a mount
// namespace of its own, whose events a mark on our mount would not see. The kernel gives each event as a file descriptor
// on the mount that was used; its /proc link is the path from that mount's root, which is the container's path, or, where
// the file system was reached through DIRECTORY itself, a path below DIRECTORY.
// Executables, shared libraries and #! interpreters are opened like any file: FAN_OPEN shows them. FAN_ACCESS adds files
// whose descriptor was inherited. Nothing is ever held up: the events are notifications, not permission requests.
//
// Protocol, on standard output, each record ended by a NUL:
//   R              the mark is in place: start the workload now (first record)
//   F<path>        first access of a regular file; absolute path in the container, e.g. `F/etc/passwd`, symlinks
//                  resolved; each file (device, inode) once, in order of first access
//   O              the event queue overflowed: some accesses are missing
//   E              end: everything that happened before standard input was closed has been reported (last record)
// Closing standard input ends the trace. Errors go to standard error; the exit code is then 1.
// Needs CAP_SYS_ADMIN and Linux 4.20.

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <unistd.h>

// Events read at once. The kernel opens a descriptor for each, and drops the event when the process may have no more of
// them (the usual limit is 1024).
#define MAX_EVENTS 256

// What was seen: (device, inode) pairs in an open-addressing table whose size is a power of two.
struct seen {
	struct {
		uint64_t device, inode;
		bool used;
	} *slots;
	size_t capacity, count;
};

static int fail(const char *what)
{
	fprintf(stderr, "access-tracer: cannot %s: %s\n", what, strerror(errno));
	return 1;
}

static size_t slot_of(const struct seen *seen, uint64_t device, uint64_t inode)
{
	uint64_t hash = (inode ^ (device << 32)) * 0x9e3779b97f4a7c15u;
	size_t slot = (size_t)(hash >> 20) & (seen->capacity - 1);
	while (seen->slots[slot].used && (seen->slots[slot].inode != inode || seen->slots[slot].device != device))
		slot = (slot + 1) & (seen->capacity - 1);
	return slot;
}

static bool seen_grow(struct seen *seen)
{
	struct seen grown = {.capacity = seen->capacity ? 2 * seen->capacity : 4096};
	grown.slots = calloc(grown.capacity, sizeof *grown.slots);
	if (!grown.slots)
		return false;
	for (size_t i = 0; i < seen->capacity; i++)
		if (seen->slots[i].used)
			grown.slots[slot_of(&grown, seen->slots[i].device, seen->slots[i].inode)] = seen->slots[i];
	grown.count = seen->count;
	free(seen->slots);
	*seen = grown;
	return true;
}

// Adds a pair; false when it was there, or when there is no memory to remember it (then it may be reported again).
static bool seen_add(struct seen *seen, uint64_t device, uint64_t inode)
{
	if (2 * (seen->count + 1) > seen->capacity && !seen_grow(seen))
		return true;
	size_t slot = slot_of(seen, device, inode);
	if (seen->slots[slot].used)
		return false;
	seen->slots[slot].device = device;
	seen->slots[slot].inode = inode;
	seen->slots[slot].used = true;
	seen->count++;
	return true;
}

static void put_record(const char *text)
{
	fwrite(text, 1, strlen(text) + 1, stdout);
}

static void report_access(int fd, const char *root, struct seen *seen)
{
	struct stat status;
	if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || !seen_add(seen, status.st_dev, status.st_ino))
		return;
	char link[64], record[PATH_MAX + 16] = "F";
	char *path = record + 1;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t size = readlink(link, path, sizeof record - 2);
	if (size <= 0)
		return;
	path[size] = 0;
	size_t root_size = strlen(root);
	if (!strncmp(path, root, root_size) && path[root_size] == '/')
		memmove(path, path + root_size, (size_t)size - root_size + 1);
	// The kernel marks the path of a file that has been removed since; its layer may still have it.
	static const char removed[] = " (deleted)";
	size_t end = strlen(path);
	if (status.st_nlink == 0 && end > strlen(removed) && !strcmp(path + end - strlen(removed), removed))
		path[end - strlen(removed)] = 0;
	if (path[0] == '/')
		put_record(record);
}

// Reports everything in the queue; returns false when it cannot be read.
static bool drain(int queue, const char *root, struct seen *seen)
{
	struct fanotify_event_metadata buffer[MAX_EVENTS];
	for (;;) {
		ssize_t size = read(queue, buffer, sizeof buffer);
		if (size < 0 && errno == EAGAIN)
			return true;
		if (size < 0 && (errno == EBADF || errno == EFAULT || errno == EINVAL))
			return false;
		// Any other error is of one event, which is off the queue: its file could not be opened, as a terminal cannot.
		if (size < 0)
			continue;
		struct fanotify_event_metadata *event = buffer;
		for (; FAN_EVENT_OK(event, size); event = FAN_EVENT_NEXT(event, size)) {
			if (event->mask & FAN_Q_OVERFLOW)
				put_record("O");
			if (event->fd < 0)
				continue;
			report_access(event->fd, root, seen);
			close(event->fd);
		}
	}
}

static int trace(int queue, const char *root)
{
	struct seen seen = {0};
	struct pollfd sources[] = {{.fd = queue, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
	for (bool ended = false; !ended;) {
		if (poll(sources, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			return fail("wait for events");
		}
		if (sources[1].revents) {
			char ignored[64];
			ssize_t n = read(STDIN_FILENO, ignored, sizeof ignored);
			ended = n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN);
		}
		if (!drain(queue, root, &seen))
			return fail("read events");
		if (ended)
			put_record("E");
		if (fflush(stdout) == EOF)
			return fail("write");
	}
	free(seen.slots);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: access-tracer DIRECTORY\n");
		return 2;
	}
	char root[PATH_MAX];
	if (!realpath(argv[1], root))
		return fail("find the directory");
	unsigned int flags = FAN_CLASS_NOTIF | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS | FAN_NONBLOCK | FAN_CLOEXEC;
	// O_NONBLOCK is for pipes, which would not open before somebody writes to them.
	int queue = fanotify_init(flags, O_RDONLY | O_LARGEFILE | O_CLOEXEC | O_NOATIME | O_NONBLOCK);
	if (queue < 0)
		return fail("start fanotify");
	unsigned int mark = FAN_MARK_ADD | FAN_MARK_FILESYSTEM;
	if (fanotify_mark(queue, mark, FAN_OPEN | FAN_ACCESS | FAN_OPEN_EXEC, AT_FDCWD, root) < 0)
		return fail("watch the file system");
	put_record("R");
	if (fflush(stdout) == EOF)
		return fail("write");
	return trace(queue, root);
}
