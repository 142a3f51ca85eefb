// System calls that Node does not offer. Each returns 0 or a positive errno.

#ifndef SYSTEM_H
#define SYSTEM_H

#include <stddef.h>
#include <stdint.h>

int system_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data);
// `flags` are umount2's.
int system_umount(const char *target, int flags);
int system_mknod(const char *path, uint32_t mode, uint32_t major, uint32_t minor);
int system_lsetxattr(const char *path, const char *name, const void *value, size_t size);
// Modification and access time in nanoseconds since the epoch; symlinks are not followed.
int system_lutimes(const char *path, int64_t seconds, long nanoseconds);
// Gives back the clean pages that the page cache has of a file.
int system_drop_cache(int fd);
// From now on, memory blocks of 128 KiB and more go back to the system when they are freed.
void system_map_large_blocks(void);
// Gives memory that has been freed back to the system, where the C library keeps it, and unmaps what can be had again from
// programs' files.
void system_trim_memory(void);
// One datagram to the unix socket at `path` (`@name`: in the abstract namespace); waits 5 seconds for a full queue.
int system_send_datagram(const char *path, const void *bytes, size_t size);

// Lets `system_interrupt_thread` end the calling thread's blocking calls with EINTR. Returns the thread's id, or -errno.
int system_make_interruptible(void);
// A call that begins only afterwards is not interrupted: repeat until the thread has noticed.
int system_interrupt_thread(int thread);

// Names an open file to a FUSE session, for passthrough. Returns its id, or -errno.
int system_backing_open(int session, int fd);
int system_backing_close(int session, int id);

// The process that connected the unix socket `fd`, 0 when it is in another pid namespace; or -errno.
int system_peer_process(int fd);

#define EXCHANGE_SIZE 4096
struct exchange_reply {
	char bytes[EXCHANGE_SIZE];
	size_t size;
	int fd;
};
// Connects to the SOCK_SEQPACKET socket at `path`, sends one message, with a descriptor unless `fd` is -1, and waits up
// to 5 seconds for one reply, whose descriptor (-1: none) is the caller's to close.
int system_exchange(const char *path, const void *message, size_t size, int fd, struct exchange_reply *reply);

#endif
