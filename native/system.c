#include "system.h"

#include <errno.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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
	return errno_of((int)syscall(SYS_mknodat, AT_FDCWD, path, mode, (unsigned)makedev(major, minor)));
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

static void close_file(FILE **file)
{
	if (*file)
		fclose(*file);
}

// A mapping of /proc/self/smaps that nobody can write to, that is of a file, and of which no page is a copy of our own.
struct constant_mapping {
	unsigned long start, end;
	bool is_constant;
};

// Unmaps what was read of programs and libraries: it is in the page cache, from where it comes back when it is used again.
// Only pages that are the file's own: what the loader has written to, and made constant after that, would be lost.
static void unmap_constants(void)
{
	__attribute__((cleanup(close_file))) FILE *maps = fopen("/proc/self/smaps", "re");
	if (!maps)
		return;
	char line[512];
	struct constant_mapping mapping = {0};
	while (fgets(line, sizeof line, maps)) {
		unsigned long start, end, inode, kib;
		char rights[8];
		if (sscanf(line, "%lx-%lx %7s %*s %*s %lu", &start, &end, rights, &inode) == 4) {
			mapping = (struct constant_mapping){start, end, inode != 0 && rights[1] == '-' && rights[3] == 'p'};
		} else if (sscanf(line, "Anonymous: %lu kB", &kib) == 1 || sscanf(line, "Swap: %lu kB", &kib) == 1) {
			if (kib > 0)
				mapping.is_constant = false;
		} else if (strncmp(line, "VmFlags:", 8) == 0 && mapping.is_constant) {
			madvise((void *)mapping.start, mapping.end - mapping.start, MADV_DONTNEED);
			mapping.is_constant = false;
		}
	}
}

// glibc raises its threshold to the size of whatever it unmaps, up to 32 MiB: later blocks below that are cut out of the
// heaps of threads, which grow by the largest that were ever there at once and hardly ever shrink.
void system_map_large_blocks(void)
{
#ifdef __GLIBC__
	mallopt(M_MMAP_THRESHOLD, 128 << 10);
#endif
}

void system_trim_memory(void)
{
#ifdef __GLIBC__
	malloc_trim(0);
#endif
	unmap_constants();
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

// Socket calls that have a time limit are interrupted by every signal, whatever its handler asked for (signal(7)). Node
// gets one whenever a child ends.
#define UNINTERRUPTED(call) TEMP_FAILURE_RETRY(call)

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
	    UNINTERRUPTED(connect(fd, (struct sockaddr *)&address,
				  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size))) < 0)
		return -1;
	int connected = fd;
	fd = -1;
	return connected;
}

int system_send_datagram(const char *path, const void *bytes, size_t size)
{
	SCOPED_FD fd = connect_unix(path, SOCK_DGRAM, 5);
	return errno_of(fd < 0 || UNINTERRUPTED(send(fd, bytes, size, MSG_NOSIGNAL)) < 0 ? -1 : 0);
}

// Any signal would do whose default is to be ignored, and that nobody else uses for a thread.
#define WAKE_SIGNAL SIGURG

static void ignore_wake(int number)
{
	(void)number;
}

int system_make_interruptible(void)
{
	// Without SA_RESTART, so that the call that the signal meets ends with EINTR.
	struct sigaction action = {.sa_handler = ignore_wake};
	sigset_t wake;
	sigemptyset(&wake);
	sigaddset(&wake, WAKE_SIGNAL);
	if (sigaction(WAKE_SIGNAL, &action, NULL) < 0)
		return -errno;
	// The calling thread's, on Linux.
	if (sigprocmask(SIG_UNBLOCK, &wake, NULL) < 0)
		return -errno;
	return (int)syscall(SYS_gettid);
}

int system_interrupt_thread(int thread)
{
	return errno_of((int)syscall(SYS_tgkill, getpid(), thread, WAKE_SIGNAL));
}

// FUSE_DEV_IOC_BACKING_OPEN and _CLOSE; older headers lack them.
struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define BACKING_OPEN _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

int system_backing_open(int session, int fd)
{
	struct backing_map map = {.fd = fd};
	int id = ioctl(session, BACKING_OPEN, &map);
	return id < 0 ? -errno : id;
}

int system_backing_close(int session, int id)
{
	uint32_t backing = (uint32_t)id;
	return errno_of(ioctl(session, BACKING_CLOSE, &backing));
}

int system_peer_process(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof peer;
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ? -errno : peer.pid;
}

// A socket whose time is up says EAGAIN.
static int timed_out(int error)
{
	return error == EAGAIN || error == EINPROGRESS ? ETIMEDOUT : error;
}

int system_exchange(const char *path, const void *message, size_t size, int fd, struct exchange_reply *reply)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec part = {.iov_base = (void *)message, .iov_len = size};
	struct msghdr out = {.msg_iov = &part, .msg_iovlen = 1};
	if (fd >= 0) {
		out.msg_control = &control;
		out.msg_controllen = sizeof control.space;
		*CMSG_FIRSTHDR(&out) = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&out)), &fd, sizeof fd);
	}
	SCOPED_FD connection = connect_unix(path, SOCK_SEQPACKET, 5);
	if (connection < 0 || UNINTERRUPTED(sendmsg(connection, &out, MSG_NOSIGNAL)) < 0)
		return timed_out(errno);

	memset(&control, 0, sizeof control);
	part = (struct iovec){.iov_base = reply->bytes, .iov_len = sizeof reply->bytes};
	struct msghdr in = {.msg_iov = &part,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof control.space};
	ssize_t received = UNINTERRUPTED(recvmsg(connection, &in, MSG_CMSG_CLOEXEC));
	if (received < 0)
		return timed_out(errno);
	reply->fd = -1;
	struct cmsghdr *attached = CMSG_FIRSTHDR(&in);
	if (attached && attached->cmsg_level == SOL_SOCKET && attached->cmsg_type == SCM_RIGHTS &&
	    attached->cmsg_len == CMSG_LEN(sizeof reply->fd))
		memcpy(&reply->fd, CMSG_DATA(attached), sizeof reply->fd);
	reply->size = (size_t)received;
	// The other side ended without an answer.
	return received == 0 ? ECONNRESET : 0;
}
