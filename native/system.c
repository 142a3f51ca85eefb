#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

static int errno_of(int result)
{
	return result < 0 ? errno : 0;
}

int system_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)
{
	return errno_of(mount(source, target, type, flags, data));
}

int system_umount(const char *target, int flags)
{
	return errno_of(umount2(target, flags));
}

int system_mknod(const char *path, uint32_t mode, uint32_t major, uint32_t minor)
{
	return errno_of(mknod(path, mode, makedev(major, minor)));
}

int system_lsetxattr(const char *path, const char *name, const void *value, size_t size)
{
	return errno_of(lsetxattr(path, name, value, size, 0));
}

int system_lutimes(const char *path, int64_t seconds, long nanoseconds)
{
	struct timespec time = {.tv_sec = seconds, .tv_nsec = nanoseconds};
	struct timespec times[2] = {time, time};
	return errno_of(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW));
}

int system_drop_cache(int fd)
{
	return posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

int system_punch_hole(int fd, int64_t offset, int64_t size)
{
	return errno_of(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size));
}

// Closes *fd when it leaves its scope; errno stays what it was.
static void close_fd(const int *fd)
{
	int saved = errno;
	if (*fd >= 0)
		close(*fd);
	errno = saved;
}
#define SCOPED_FD __attribute__((cleanup(close_fd))) int

// Makes a socket whose calls end within `seconds`, and connects it. A path that starts with `@` is in Linux's abstract
// namespace. Any other is reached through its directory's descriptor, because an address has room for 107 bytes only.
// Returns the socket, or -1.
static int connect_unix(const char *path, int type, int seconds)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t size = strlen(path);
	SCOPED_FD directory = -1;
	if (path[0] == '@' || size < sizeof address.sun_path) {
		if (size >= sizeof address.sun_path) {
			errno = ENAMETOOLONG;
			return -1;
		}
		memcpy(address.sun_path, path, size);
		if (path[0] == '@')
			address.sun_path[0] = 0;
		else
			size++;
	} else {
		const char *name = strrchr(path, '/');
		char *parent = name ? strndup(path, (size_t)(name - path)) : NULL;
		if (!parent)
			return -1;
		directory = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
		free(parent);
		if (directory < 0)
			return -1;
		int printed = snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d%s", directory, name);
		if (printed < 0 || (size_t)printed >= sizeof address.sun_path) {
			errno = ENAMETOOLONG;
			return -1;
		}
		size = (size_t)printed + 1;
	}
	SCOPED_FD fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	struct timeval patience = {.tv_sec = seconds};
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0 ||
	    connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size)) < 0)
		return -1;
	int connected = fd;
	fd = -1;
	return connected;
}

int system_send_datagram(const char *path, const void *bytes, size_t size)
{
	SCOPED_FD fd = connect_unix(path, SOCK_DGRAM, 5);
	return errno_of(fd < 0 || send(fd, bytes, size, MSG_NOSIGNAL) < 0 ? -1 : 0);
}
