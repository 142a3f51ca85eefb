// System calls that Node does not offer. Each returns 0 or a positive errno.

#ifndef SYSTEM_H
#define SYSTEM_H

#include <stddef.h>
#include <stdint.h>

int system_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data);
int system_umount(const char *target);
int system_mknod(const char *path, uint32_t mode, uint32_t major, uint32_t minor);
int system_lsetxattr(const char *path, const char *name, const void *value, size_t size);
// Modification and access time in nanoseconds since the epoch; symlinks are not followed.
int system_lutimes(const char *path, int64_t seconds, long nanoseconds);

#endif
