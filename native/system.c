#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

static int errno_of(int result)
{
	return result < 0 ? errno : 0;
}

int system_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)
{
	return errno_of(mount(source, target, type, flags, data));
}

int system_umount(const char *target)
{
	return errno_of(umount(target));
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
