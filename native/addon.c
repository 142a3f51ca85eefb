// The N-API face of codec.c and system.c: arguments in, promises out. Bulk work runs on libuv's thread pool; the caller's
// buffers are referenced until it has ended, never copied.

#include <node_api.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "addon.h"
#include "codec.h"
#include "system.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum job_kind { JOB_COMPRESS, JOB_HASH, JOB_CHECKSUM, JOB_READ, JOB_INFLATE, JOB_UNPACK, JOB_UPDATE, JOB_UPDATE_PIECES, JOB_FINAL, JOB_EXCHANGE };

struct exchange {
	const char *path;
	int fd;
	// An errno, or 0 and a reply, whose descriptor is ours until JavaScript has it.
	int failure;
	struct exchange_reply reply;
};

// One call on its way through the thread pool.
struct job {
	enum job_kind kind;
	enum member_kind member;
	int level;
	struct spool spool;
	struct piece_lists lists;
	struct sha256_stream *stream;
	struct unpacking unpacking;
	const uint8_t *in;
	size_t in_size;
	uint8_t *out;
	size_t out_size;
	uint32_t *sizes;
	struct exchange *exchange;
	const char *error;
	napi_ref arguments;
	napi_deferred deferred;
	napi_async_work work;
};

napi_value throw_error(napi_env env, const char *message)
{
	napi_throw_error(env, NULL, message);
	return NULL;
}

// A typed array of the `wanted` type (Buffers have bytes): its memory, and how many elements it has.
static bool array_of(napi_env env, napi_value value, napi_typedarray_type wanted, const void **data, size_t *count)
{
	bool typed = false;
	napi_typedarray_type type;
	void *memory;
	if (napi_is_typedarray(env, value, &typed) != napi_ok || !typed)
		return false;
	if (napi_get_typedarray_info(env, value, &type, count, &memory, NULL, NULL) != napi_ok)
		return false;
	*data = memory;
	return type == wanted;
}

bool bytes_of(napi_env env, napi_value value, const uint8_t **data, size_t *size)
{
	return array_of(env, value, napi_uint8_array, (const void **)data, size);
}

static bool spool_of(napi_env env, napi_value value, struct spool *spool)
{
	static const uint8_t nothing;
	napi_valuetype type;
	if (napi_typeof(env, value, &type) != napi_ok)
		return false;
	if (type == napi_number)
		return napi_get_value_int32(env, value, &spool->fd) == napi_ok;
	if (!bytes_of(env, value, &spool->memory, &spool->memory_size))
		return false;
	if (!spool->memory)
		spool->memory = &nothing;
	return true;
}

// literals, offsets, sizes, counts
static bool lists_of(napi_env env, const napi_value *args, struct piece_lists *lists)
{
	const void *offsets, *sizes, *counts;
	size_t sizes_count;
	if (!bytes_of(env, args[0], &lists->literals, &lists->literals_size) ||
	    !array_of(env, args[1], napi_float64_array, &offsets, &lists->pieces) ||
	    !array_of(env, args[2], napi_float64_array, &sizes, &sizes_count) ||
	    !array_of(env, args[3], napi_uint32_array, &counts, &lists->lists) || lists->pieces != sizes_count)
		return false;
	lists->offsets = offsets;
	lists->sizes = sizes;
	lists->counts = counts;
	return true;
}

static void run_job(napi_env env, void *data)
{
	(void)env;
	struct job *job = data;
	switch (job->kind) {
	case JOB_COMPRESS:
		job->error = compress_members(job->member, job->level, &job->spool, &job->lists, &job->out,
					      &job->out_size, job->sizes);
		break;
	case JOB_HASH:
		job->error = hash_pieces(&job->spool, &job->lists, job->out);
		break;
	case JOB_CHECKSUM:
		job->error = checksum_pieces(&job->spool, &job->lists, job->out);
		break;
	case JOB_READ:
		job->error = read_pieces(&job->spool, &job->lists, job->out, job->out_size);
		break;
	case JOB_INFLATE:
		job->error = inflate_member(job->member, job->in, job->in_size, job->out, job->out_size);
		break;
	case JOB_UNPACK:
		job->error = unpack_streams(&job->unpacking, job->out);
		break;
	case JOB_UPDATE:
		sha256_stream_update(job->stream, job->in, job->in_size);
		break;
	case JOB_UPDATE_PIECES:
		job->error = sha256_stream_update_pieces(job->stream, &job->spool, &job->lists);
		break;
	case JOB_FINAL:
		sha256_stream_final(job->stream, job->out);
		break;
	case JOB_EXCHANGE:
		job->exchange->failure = system_exchange(job->exchange->path, job->in, job->in_size, job->exchange->fd,
							 &job->exchange->reply);
		break;
	}
}

static void free_memory(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	free(data);
}

napi_value array_over(napi_env env, void *memory, size_t size, napi_typedarray_type type)
{
	napi_value buffer, array;
	if (napi_create_external_arraybuffer(env, memory, size, free_memory, NULL, &buffer) != napi_ok) {
		void *copy;
		if (napi_create_arraybuffer(env, size, &copy, &buffer) != napi_ok) {
			free(memory);
			return NULL;
		}
		memcpy(copy, memory, size);
		free(memory);
	}
	size_t length = type == napi_float64_array ? size / 8 : type == napi_uint32_array ? size / 4 : size;
	return napi_create_typedarray(env, type, length, buffer, 0, &array) == napi_ok ? array : NULL;
}

// {bytes, fd}, or an errno
static napi_value reply_of(napi_env env, struct exchange *exchange)
{
	struct exchange_reply *reply = &exchange->reply;
	napi_value result, bytes, fd;
	if (exchange->failure)
		return napi_create_int32(env, exchange->failure, &result) == napi_ok ? result : NULL;
	if (napi_create_buffer_copy(env, reply->size, reply->bytes, NULL, &bytes) != napi_ok ||
	    napi_create_int32(env, reply->fd, &fd) != napi_ok || napi_create_object(env, &result) != napi_ok ||
	    napi_set_named_property(env, result, "bytes", bytes) != napi_ok ||
	    napi_set_named_property(env, result, "fd", fd) != napi_ok)
		return NULL;
	reply->fd = -1;
	return result;
}

static napi_value result_of(napi_env env, struct job *job)
{
	napi_value result = NULL;
	if (job->exchange)
		return reply_of(env, job->exchange);
	if (!job->out) {
		napi_get_undefined(env, &result);
		return result;
	}
	napi_value bytes = array_over(env, job->out, job->out_size, napi_uint8_array);
	job->out = NULL;
	if (!bytes || job->kind != JOB_COMPRESS)
		return bytes;
	napi_value sizes = array_over(env, job->sizes, job->lists.lists * sizeof(uint32_t), napi_uint32_array);
	job->sizes = NULL;
	if (!sizes || napi_create_object(env, &result) != napi_ok)
		return NULL;
	napi_set_named_property(env, result, "bytes", bytes);
	napi_set_named_property(env, result, "sizes", sizes);
	return result;
}

static void free_job(napi_env env, struct job *job)
{
	if (job->arguments)
		napi_delete_reference(env, job->arguments);
	if (job->work)
		napi_delete_async_work(env, job->work);
	if (job->exchange && job->exchange->reply.fd >= 0)
		close(job->exchange->reply.fd);
	free(job->exchange);
	free(job->out);
	free(job->sizes);
	free(job);
}

static void finish_job(napi_env env, napi_status status, void *data)
{
	struct job *job = data;
	napi_handle_scope scope;
	napi_open_handle_scope(env, &scope);
	napi_value result = NULL;
	if (status != napi_ok)
		job->error = "it was interrupted";
	if (!job->error && !(result = result_of(env, job)))
		job->error = "out of memory";
	if (job->error) {
		napi_value message, error;
		napi_create_string_utf8(env, job->error, NAPI_AUTO_LENGTH, &message);
		napi_create_error(env, NULL, message, &error);
		napi_reject_deferred(env, job->deferred, error);
	} else {
		napi_resolve_deferred(env, job->deferred, result);
	}
	napi_close_handle_scope(env, scope);
	free_job(env, job);
}

// Queues `job` and returns its promise. The arguments are kept alive in an array until it has ended.
static napi_value start_job(napi_env env, struct job *job, const napi_value *args, size_t count)
{
	napi_value kept, name, promise;
	if (napi_create_array_with_length(env, count, &kept) != napi_ok)
		goto fail;
	for (size_t i = 0; i < count; i++)
		napi_set_element(env, kept, (uint32_t)i, args[i]);
	if (napi_create_reference(env, kept, 1, &job->arguments) != napi_ok ||
	    napi_create_string_utf8(env, "ctr-remote", NAPI_AUTO_LENGTH, &name) != napi_ok ||
	    napi_create_async_work(env, NULL, name, run_job, finish_job, job, &job->work) != napi_ok ||
	    napi_create_promise(env, &job->deferred, &promise) != napi_ok)
		goto fail;
	if (napi_queue_async_work(env, job->work) == napi_ok)
		return promise;
fail:
	free_job(env, job);
	return throw_error(env, "Cannot start native work");
}

static struct job *new_job(enum job_kind kind)
{
	struct job *job = calloc(1, sizeof *job);
	if (job)
		job->kind = kind;
	return job;
}

static napi_value bad_arguments(napi_env env, struct job *job)
{
	if (job)
		free_job(env, job);
	return throw_error(env, "Cannot call native code: wrong arguments");
}

static napi_value out_of_memory(napi_env env, struct job *job)
{
	if (job)
		free_job(env, job);
	return throw_error(env, "out of memory");
}

bool get_args(napi_env env, napi_callback_info info, napi_value *args, size_t wanted)
{
	size_t count = MAX_ARGS;
	return napi_get_cb_info(env, info, &count, args, NULL, NULL) == napi_ok && count >= wanted;
}

// compressMembers(kind, level, storage, literals, offsets, sizes, counts): Promise<{bytes, sizes}>
static napi_value js_compress_members(napi_env env, napi_callback_info info)
{
	napi_value args[MAX_ARGS];
	struct job *job = new_job(JOB_COMPRESS);
	int32_t kind;
	if (!job || !get_args(env, info, args, 7) || napi_get_value_int32(env, args[0], &kind) != napi_ok ||
	    napi_get_value_int32(env, args[1], &job->level) != napi_ok || !spool_of(env, args[2], &job->spool) ||
	    !lists_of(env, args + 3, &job->lists))
		return bad_arguments(env, job);
	job->member = kind ? MEMBER_ZSTD : MEMBER_GZIP;
	job->sizes = calloc(job->lists.lists + 1, sizeof *job->sizes);
	if (!job->sizes)
		return out_of_memory(env, job);
	return start_job(env, job, args, 7);
}

// A call (storage, literals, offsets, sizes, counts) whose result has `item_size` bytes for every list.
static napi_value digest_lists(napi_env env, napi_callback_info info, enum job_kind kind, size_t item_size)
{
	napi_value args[MAX_ARGS];
	struct job *job = new_job(kind);
	if (!job || !get_args(env, info, args, 5) || !spool_of(env, args[0], &job->spool) ||
	    !lists_of(env, args + 1, &job->lists))
		return bad_arguments(env, job);
	job->out_size = item_size * job->lists.lists;
	if (!(job->out = malloc(job->out_size + 1)))
		return out_of_memory(env, job);
	return start_job(env, job, args, 5);
}

// hashPieces(storage, literals, offsets, sizes, counts): Promise<Uint8Array>
static napi_value js_hash_pieces(napi_env env, napi_callback_info info)
{
	return digest_lists(env, info, JOB_HASH, 32);
}

// checksumPieces(storage, literals, offsets, sizes, counts): Promise<Uint8Array>
static napi_value js_checksum_pieces(napi_env env, napi_callback_info info)
{
	return digest_lists(env, info, JOB_CHECKSUM, 8);
}

// readPieces(storage, literals, offsets, sizes, counts): Promise<Uint8Array>
static napi_value js_read_pieces(napi_env env, napi_callback_info info)
{
	napi_value args[MAX_ARGS];
	struct job *job = new_job(JOB_READ);
	if (!job || !get_args(env, info, args, 5) || !spool_of(env, args[0], &job->spool) ||
	    !lists_of(env, args + 1, &job->lists))
		return bad_arguments(env, job);
	double size = 0;
	for (size_t i = 0; i < job->lists.pieces; i++)
		size += job->lists.sizes[i];
	if (!(size >= 0 && size <= 0x7fffffff))
		return bad_arguments(env, job);
	job->out_size = (size_t)size;
	if (!(job->out = malloc(job->out_size + 1)))
		return out_of_memory(env, job);
	return start_job(env, job, args, 5);
}

// inflateMember(kind, bytes, size): Promise<Uint8Array>
static napi_value js_inflate_member(napi_env env, napi_callback_info info)
{
	napi_value args[MAX_ARGS];
	struct job *job = new_job(JOB_INFLATE);
	int32_t kind;
	int64_t size;
	if (!job || !get_args(env, info, args, 3) || napi_get_value_int32(env, args[0], &kind) != napi_ok ||
	    !bytes_of(env, args[1], &job->in, &job->in_size) ||
	    napi_get_value_int64(env, args[2], &size) != napi_ok || size < 0)
		return bad_arguments(env, job);
	job->member = kind ? MEMBER_ZSTD : MEMBER_GZIP;
	job->out_size = (size_t)size;
	if (!(job->out = malloc(job->out_size + 1)))
		return out_of_memory(env, job);
	return start_job(env, job, args, 3);
}

// unpackStreams(kind, bytes, streams, chunks, hashes | undefined, fd): Promise<Uint8Array>
static napi_value js_unpack_streams(napi_env env, napi_callback_info info)
{
	napi_value args[MAX_ARGS];
	struct job *job = new_job(JOB_UNPACK);
	int32_t kind;
	const void *streams, *chunks;
	size_t numbers, hashes_size = 0;
	napi_valuetype hashes_type;
	if (!job)
		return bad_arguments(env, job);
	struct unpacking *unpacking = &job->unpacking;
	if (!get_args(env, info, args, 6) || napi_get_value_int32(env, args[0], &kind) != napi_ok ||
	    !bytes_of(env, args[1], &unpacking->bytes, &unpacking->size) ||
	    !array_of(env, args[2], napi_float64_array, &streams, &numbers) || numbers % 4 != 0)
		return bad_arguments(env, job);
	unpacking->stream_count = numbers / 4;
	if (!array_of(env, args[3], napi_float64_array, &chunks, &numbers) || numbers % 3 != 0 ||
	    napi_typeof(env, args[4], &hashes_type) != napi_ok || napi_get_value_int32(env, args[5], &unpacking->fd) != napi_ok)
		return bad_arguments(env, job);
	unpacking->chunk_count = numbers / 3;
	if (hashes_type != napi_undefined && (!bytes_of(env, args[4], &unpacking->hashes, &hashes_size) ||
					      hashes_size != 32 * unpacking->chunk_count))
		return bad_arguments(env, job);
	unpacking->kind = kind ? MEMBER_ZSTD : MEMBER_GZIP;
	unpacking->streams = streams;
	unpacking->chunks = chunks;
	job->out_size = unpacking->stream_count;
	if (!(job->out = calloc(job->out_size + 1, 1)))
		return out_of_memory(env, job);
	return start_job(env, job, args, 6);
}

static void free_digester(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	sha256_stream_free(data);
}

// createDigester(): opaque. Updates of one digester must not overlap: the caller waits for each.
static napi_value js_create_digester(napi_env env, napi_callback_info info)
{
	(void)info;
	napi_value external;
	struct sha256_stream *stream = sha256_stream_new();
	if (!stream)
		return throw_error(env, "Cannot start SHA-256");
	if (napi_create_external(env, stream, free_digester, NULL, &external) == napi_ok)
		return external;
	sha256_stream_free(stream);
	return throw_error(env, "Cannot start SHA-256");
}

// digesterUpdate(digester, bytes): Promise<void>
static napi_value js_digester_update(napi_env env, napi_callback_info info)
{
	napi_value args[MAX_ARGS];
	struct job *job = new_job(JOB_UPDATE);
	if (!job || !get_args(env, info, args, 2) ||
	    napi_get_value_external(env, args[0], (void **)&job->stream) != napi_ok ||
	    !bytes_of(env, args[1], &job->in, &job->in_size))
		return bad_arguments(env, job);
	return start_job(env, job, args, 2);
}

// digesterUpdatePieces(digester, storage, literals, offsets, sizes, counts): Promise<void>
static napi_value js_digester_update_pieces(napi_env env, napi_callback_info info)
{
	napi_value args[MAX_ARGS];
	struct job *job = new_job(JOB_UPDATE_PIECES);
	if (!job || !get_args(env, info, args, 6) ||
	    napi_get_value_external(env, args[0], (void **)&job->stream) != napi_ok ||
	    !spool_of(env, args[1], &job->spool) || !lists_of(env, args + 2, &job->lists))
		return bad_arguments(env, job);
	return start_job(env, job, args, 6);
}

// digesterFinal(digester): Promise<Uint8Array>
static napi_value js_digester_final(napi_env env, napi_callback_info info)
{
	napi_value args[MAX_ARGS];
	struct job *job = new_job(JOB_FINAL);
	if (!job || !get_args(env, info, args, 1) ||
	    napi_get_value_external(env, args[0], (void **)&job->stream) != napi_ok)
		return bad_arguments(env, job);
	job->out_size = 32;
	if (!(job->out = malloc(32)))
		return out_of_memory(env, job);
	return start_job(env, job, args, 1);
}

// Paths and names are given as bytes with a NUL at the end.
static bool text_of(napi_env env, napi_value value, const char **text)
{
	const uint8_t *data;
	size_t size;
	if (!bytes_of(env, value, &data, &size) || size == 0 || memchr(data, 0, size) != data + size - 1)
		return false;
	*text = (const char *)data;
	return true;
}

static napi_value errno_value(napi_env env, int error)
{
	napi_value value;
	return napi_create_int32(env, error, &value) == napi_ok ? value : NULL;
}

// mount(source, target, type, flags, data): errno
static napi_value js_mount(napi_env env, napi_callback_info info)
{
	napi_value args[MAX_ARGS];
	const char *source, *target, *type, *data;
	uint32_t flags;
	if (!get_args(env, info, args, 5) || !text_of(env, args[0], &source) || !text_of(env, args[1], &target) ||
	    !text_of(env, args[2], &type) || napi_get_value_uint32(env, args[3], &flags) != napi_ok ||
	    !text_of(env, args[4], &data))
		return bad_arguments(env, NULL);
	return errno_value(env, system_mount(source, target, type, flags, data));
}

// umount(target, flags): errno
static napi_value js_umount(napi_env env, napi_callback_info info)
{
	napi_value args[MAX_ARGS];
	const char *target;
	int32_t flags;
	if (!get_args(env, info, args, 2) || !text_of(env, args[0], &target) ||
	    napi_get_value_int32(env, args[1], &flags) != napi_ok)
		return bad_arguments(env, NULL);
	return errno_value(env, system_umount(target, flags));
}

// mknod(path, mode, major, minor): errno
static napi_value js_mknod(napi_env env, napi_callback_info info)
{
	napi_value args[MAX_ARGS];
	const char *path;
	uint32_t mode, major, minor;
	if (!get_args(env, info, args, 4) || !text_of(env, args[0], &path) ||
	    napi_get_value_uint32(env, args[1], &mode) != napi_ok ||
	    napi_get_value_uint32(env, args[2], &major) != napi_ok ||
	    napi_get_value_uint32(env, args[3], &minor) != napi_ok)
		return bad_arguments(env, NULL);
	return errno_value(env, system_mknod(path, mode, major, minor));
}

// lsetxattr(path, name, value): errno
static napi_value js_lsetxattr(napi_env env, napi_callback_info info)
{
	napi_value args[MAX_ARGS];
	const char *path, *name;
	const uint8_t *value;
	size_t size;
	if (!get_args(env, info, args, 3) || !text_of(env, args[0], &path) || !text_of(env, args[1], &name) ||
	    !bytes_of(env, args[2], &value, &size))
		return bad_arguments(env, NULL);
	return errno_value(env, system_lsetxattr(path, name, value, size));
}

// lutimes(path, seconds, nanoseconds): errno
static napi_value js_lutimes(napi_env env, napi_callback_info info)
{
	napi_value args[MAX_ARGS];
	const char *path;
	int64_t seconds, nanoseconds;
	if (!get_args(env, info, args, 3) || !text_of(env, args[0], &path) ||
	    napi_get_value_int64(env, args[1], &seconds) != napi_ok ||
	    napi_get_value_int64(env, args[2], &nanoseconds) != napi_ok)
		return bad_arguments(env, NULL);
	return errno_value(env, system_lutimes(path, seconds, (long)nanoseconds));
}

// sendDatagram(path, bytes): errno
static napi_value js_send_datagram(napi_env env, napi_callback_info info)
{
	napi_value args[MAX_ARGS];
	const char *path;
	const uint8_t *bytes;
	size_t size;
	if (!get_args(env, info, args, 2) || !text_of(env, args[0], &path) || !bytes_of(env, args[1], &bytes, &size))
		return bad_arguments(env, NULL);
	return errno_value(env, system_send_datagram(path, bytes, size));
}

// makeInterruptible(): thread id, or -errno
static napi_value js_make_interruptible(napi_env env, napi_callback_info info)
{
	(void)info;
	return errno_value(env, system_make_interruptible());
}

// Calls `call` with one number, or two.
static napi_value call_with_numbers(napi_env env, napi_callback_info info, int (*one)(int), int (*two)(int, int))
{
	napi_value args[MAX_ARGS];
	int32_t first, second = 0;
	if (!get_args(env, info, args, one ? 1 : 2) || napi_get_value_int32(env, args[0], &first) != napi_ok ||
	    (two && napi_get_value_int32(env, args[1], &second) != napi_ok))
		return bad_arguments(env, NULL);
	return errno_value(env, one ? one(first) : two(first, second));
}

// dropCache(fd): errno
static napi_value js_drop_cache(napi_env env, napi_callback_info info)
{
	return call_with_numbers(env, info, system_drop_cache, NULL);
}

// mapLargeBlocks(): undefined
static napi_value js_map_large_blocks(napi_env env, napi_callback_info info)
{
	(void)env;
	(void)info;
	system_map_large_blocks();
	return NULL;
}

// trimMemory(): undefined
static napi_value js_trim_memory(napi_env env, napi_callback_info info)
{
	(void)env;
	(void)info;
	system_trim_memory();
	return NULL;
}

// interruptThread(thread): errno
static napi_value js_interrupt_thread(napi_env env, napi_callback_info info)
{
	return call_with_numbers(env, info, system_interrupt_thread, NULL);
}

// openBacking(session, fd): id, or -errno
static napi_value js_open_backing(napi_env env, napi_callback_info info)
{
	return call_with_numbers(env, info, NULL, system_backing_open);
}

// closeBacking(session, id): errno
static napi_value js_close_backing(napi_env env, napi_callback_info info)
{
	return call_with_numbers(env, info, NULL, system_backing_close);
}

// peerProcess(fd): pid, or -errno
static napi_value js_peer_process(napi_env env, napi_callback_info info)
{
	return call_with_numbers(env, info, system_peer_process, NULL);
}

// exchange(path, message, fd): Promise<{bytes, fd} | errno>
static napi_value js_exchange(napi_env env, napi_callback_info info)
{
	napi_value args[MAX_ARGS];
	struct job *job = new_job(JOB_EXCHANGE);
	if (!job || !(job->exchange = calloc(1, sizeof *job->exchange)))
		return out_of_memory(env, job);
	job->exchange->reply.fd = -1;
	if (!get_args(env, info, args, 3) || !text_of(env, args[0], &job->exchange->path) ||
	    !bytes_of(env, args[1], &job->in, &job->in_size) ||
	    napi_get_value_int32(env, args[2], &job->exchange->fd) != napi_ok)
		return bad_arguments(env, job);
	return start_job(env, job, args, 3);
}

NAPI_MODULE_INIT()
{
	static const struct {
		const char *name;
		napi_callback call;
	} functions[] = {
		{"compressMembers", js_compress_members},
		{"hashPieces", js_hash_pieces},
		{"checksumPieces", js_checksum_pieces},
		{"readPieces", js_read_pieces},
		{"inflateMember", js_inflate_member},
		{"unpackStreams", js_unpack_streams},
		{"createDigester", js_create_digester},
		{"digesterUpdate", js_digester_update},
		{"digesterUpdatePieces", js_digester_update_pieces},
		{"digesterFinal", js_digester_final},
		{"mount", js_mount},
		{"umount", js_umount},
		{"mknod", js_mknod},
		{"lsetxattr", js_lsetxattr},
		{"lutimes", js_lutimes},
		{"dropCache", js_drop_cache},
		{"mapLargeBlocks", js_map_large_blocks},
		{"trimMemory", js_trim_memory},
		{"sendDatagram", js_send_datagram},
		{"makeInterruptible", js_make_interruptible},
		{"interruptThread", js_interrupt_thread},
		{"openBacking", js_open_backing},
		{"closeBacking", js_close_backing},
		{"peerProcess", js_peer_process},
		{"exchange", js_exchange},
		{"openLayer", js_open_layer},
	};
	for (size_t i = 0; i < COUNT(functions); i++) {
		napi_value function;
		if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].call, NULL, &function) !=
			    napi_ok ||
		    napi_set_named_property(env, exports, functions[i].name, function) != napi_ok)
			return throw_error(env, "Cannot load the native addon");
	}
	return exports;
}
