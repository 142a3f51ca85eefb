// keeper DIRECTORY: holds descriptors by name for a program that may be killed or restarted at any moment, and gives
// copies of them to its successor. A /dev/fuse that is held stays connected: readers wait instead of getting errors.
//
// It listens on DIRECTORY/keeper.sock (SOCK_SEQPACKET, mode 0600; only the same user and root are answered). Each
// connection is one message and one reply. Both start with a letter; names are 1 to 64 bytes, notes up to 1024.
//   H<name>\0<note>, with a descriptor   hold it, instead of what was held under that name
//   T<name>                              take: the reply is O<note> with a copy of the descriptor
//   D<name>                              drop it
// Replies: O (done), N (nothing is held under that name), E<reason>.
// A /dev/fuse whose file system has been unmounted or aborted is dropped by itself.
//
// On standard output it writes one letter: R, it listens; B, another keeper does, in the same directory. It ends when the
// last descriptor has been dropped, or when nobody has given it one for a minute. Errors go to standard error; the exit code is then 1.

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET_NAME "keeper.sock"
#define LOCK_NAME "keeper.lock"
#define MAX_HELD 64
#define MAX_NAME 64
#define MAX_NOTE 1024
#define MAX_MESSAGE (1 + MAX_NAME + 1 + MAX_NOTE)
#define IDLE_MS 60000
// A client that says nothing must not keep others waiting.
#define CLIENT_SECONDS 2

struct held {
	char name[MAX_NAME + 1];
	char note[MAX_NOTE];
	size_t note_size;
	int fd;
};

static struct held held[MAX_HELD];
static size_t held_count;

static int fail(const char *what)
{
	fprintf(stderr, "keeper: cannot %s: %s\n", what, strerror(errno));
	return 1;
}

static struct held *find(const char *name)
{
	for (size_t i = 0; i < held_count; i++)
		if (!strcmp(held[i].name, name))
			return &held[i];
	return NULL;
}

static void drop(struct held *entry)
{
	close(entry->fd);
	*entry = held[--held_count];
}

// Forgets what is connected to nothing any more.
static void drop_dead(void)
{
	for (size_t i = held_count; i-- > 0;) {
		struct pollfd state = {.fd = held[i].fd};
		if (poll(&state, 1, 0) > 0 && state.revents & (POLLERR | POLLNVAL))
			drop(&held[i]);
	}
}

struct message {
	char bytes[MAX_MESSAGE + 1];
	size_t size;
	int fd;
};

// Keeps the first descriptor that came with a message, and closes all others.
static int first_descriptor(struct msghdr *header)
{
	int first = -1;
	for (struct cmsghdr *attached = CMSG_FIRSTHDR(header); attached; attached = CMSG_NXTHDR(header, attached)) {
		if (attached->cmsg_level != SOL_SOCKET || attached->cmsg_type != SCM_RIGHTS)
			continue;
		size_t count = (attached->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(attached) + i * sizeof fd, sizeof fd);
			if (first < 0)
				first = fd;
			else
				close(fd);
		}
	}
	return first;
}

// Waits for a message; false when there is none. Its descriptor (-1: none) is the caller's.
static bool receive(int client, struct message *message)
{
	// CMSG_SPACE is rounded up, so that a second descriptor may fit where one was meant.
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = {.iov_base = message->bytes, .iov_len = MAX_MESSAGE};
	struct msghdr header = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.space};
	message->fd = -1;
	ssize_t size = recvmsg(client, &header, MSG_CMSG_CLOEXEC);
	if (size < 0)
		return false;
	message->fd = first_descriptor(&header);
	message->bytes[size] = 0;
	message->size = (size_t)size;
	return size > 0 && !(header.msg_flags & MSG_TRUNC);
}

static void reply(int client, char letter, const char *text, size_t size, int fd)
{
	char bytes[1 + MAX_NOTE] = {letter};
	memcpy(bytes + 1, text, size);
	struct iovec part = {.iov_base = bytes, .iov_len = 1 + size};
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	if (fd >= 0) {
		header.msg_control = &control;
		header.msg_controllen = sizeof control.space;
		struct cmsghdr *attached = CMSG_FIRSTHDR(&header);
		attached->cmsg_len = CMSG_LEN(sizeof fd);
		attached->cmsg_level = SOL_SOCKET;
		attached->cmsg_type = SCM_RIGHTS;
		memcpy(CMSG_DATA(attached), &fd, sizeof fd);
	}
	// Who does not wait for the reply does not want it.
	(void)!sendmsg(client, &header, MSG_NOSIGNAL);
}

static void refuse(int client, const char *reason)
{
	reply(client, 'E', reason, strlen(reason), -1);
}

// Takes message->fd over.
static void hold(int client, struct message *message, const char *name, const char *note, size_t note_size)
{
	if (message->fd < 0)
		return refuse(client, "there is no descriptor");
	if (note_size > MAX_NOTE)
		return refuse(client, "the note is too long");
	struct held *entry = find(name);
	if (!entry && held_count == MAX_HELD)
		return refuse(client, "it holds too many descriptors");
	if (entry)
		close(entry->fd);
	else
		entry = &held[held_count++];
	strcpy(entry->name, name);
	memcpy(entry->note, note, note_size);
	entry->note_size = note_size;
	entry->fd = message->fd;
	message->fd = -1;
	reply(client, 'O', "", 0, -1);
}

static void handle(int client, struct message *message)
{
	const char *name = message->bytes + 1;
	size_t name_size = strlen(name);
	if (name_size == 0 || name_size > MAX_NAME) {
		refuse(client, "the name is too short or too long");
		return;
	}
	struct held *entry = find(name);
	// A message without a note may end with the name.
	size_t head = 1 + name_size + 1;
	switch (message->bytes[0]) {
	case 'H':
		hold(client, message, name, name + name_size + 1, message->size > head ? message->size - head : 0);
		return;
	case 'T':
		if (entry)
			reply(client, 'O', entry->note, entry->note_size, entry->fd);
		else
			reply(client, 'N', "", 0, -1);
		return;
	case 'D':
		if (entry)
			drop(entry);
		reply(client, entry ? 'O' : 'N', "", 0, -1);
		return;
	default:
		refuse(client, "the message is unknown");
	}
}

static bool is_trusted(int client)
{
	struct ucred peer;
	socklen_t size = sizeof peer;
	return getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.uid == 0 || peer.uid == geteuid());
}

static void serve(int listener)
{
	int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (client < 0)
		return;
	struct timeval patience = {.tv_sec = CLIENT_SECONDS};
	struct message message;
	if (is_trusted(client) && setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 &&
	    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) == 0) {
		if (receive(client, &message))
			handle(client, &message);
		if (message.fd >= 0)
			close(message.fd);
	}
	close(client);
}

// The socket, at a name that only the holder of the lock may replace.
static int listen_here(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET_NAME};
	int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	umask(0177);
	unlink(SOCKET_NAME);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 64) < 0)
		return -1;
	return listener;
}

static void run(int listener)
{
	bool used = false;
	for (;;) {
		struct pollfd source = {.fd = listener, .events = POLLIN};
		int ready = poll(&source, 1, IDLE_MS);
		// The descriptors themselves are not waited for: that would wake the keeper for every request.
		drop_dead();
		if (ready > 0)
			serve(listener);
		used = used || held_count > 0;
		if (held_count == 0 && (used || ready == 0))
			break;
	}
	// Before the lock goes with the process, so that a successor's socket stays.
	unlink(SOCKET_NAME);
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: keeper DIRECTORY\n");
		return 2;
	}
	if (chdir(argv[1]) < 0)
		return fail("enter the directory");
	// Nothing that the starting program has open is held by accident.
	if (close_range(3, ~0U, 0) < 0)
		return fail("close descriptors");
	setsid();
	int lock = open(LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0)
		return fail("open " LOCK_NAME);
	if (flock(lock, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return fail("lock " LOCK_NAME);
		(void)!write(STDOUT_FILENO, "B", 1);
		return 0;
	}
	int listener = listen_here();
	if (listener < 0)
		return fail("listen on " SOCKET_NAME);
	(void)!write(STDOUT_FILENO, "R", 1);
	int null = open("/dev/null", O_RDWR);
	for (int fd = STDIN_FILENO; null >= 0 && fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	if (null > STDERR_FILENO)
		close(null);
	run(listener);
	return 0;
}
