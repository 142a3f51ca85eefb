// The N-API face of layer/: one call opens one layer, on libuv's thread pool.

#include <stdlib.h>
#include <string.h>

#include "addon.h"
#include "layer/open-layer.h"

struct layer_job {
	struct layer_task task;
	struct opened_layer layer;
	uint8_t hash[32];
	enum open_status status;
	napi_ref arguments;
	napi_deferred deferred;
	napi_async_work work;
};

static void run_job(napi_env env, void *data)
{
	(void)env;
	struct layer_job *job = data;
	job->status = open_layer(&job->task, &job->layer);
}

static void free_job(napi_env env, struct layer_job *job)
{
	if (job->arguments)
		napi_delete_reference(env, job->arguments);
	if (job->work)
		napi_delete_async_work(env, job->work);
	opened_layer_free(&job->layer);
	free(job);
}

static bool set_number(napi_env env, napi_value object, const char *name, double number)
{
	napi_value value;
	return napi_create_double(env, number, &value) == napi_ok &&
	       napi_set_named_property(env, object, name, value) == napi_ok;
}

// Hands an array over to JavaScript; what is NULL is left out.
static bool set_array(napi_env env, napi_value object, const char *name, void *memory, size_t size, napi_typedarray_type type)
{
	if (!memory)
		return true;
	napi_value array = array_over(env, memory, size, type);
	return array && napi_set_named_property(env, object, name, array) == napi_ok;
}

static bool set_arrays(napi_env env, napi_value object, struct opened_layer *layer)
{
	const struct {
		const char *name;
		void **memory;
		size_t size;
		napi_typedarray_type type;
	} arrays[] = {
		{"deviceOffsets", (void **)&layer->device_offsets, layer->count * 8, napi_float64_array},
		{"sizes", (void **)&layer->sizes, layer->count * 8, napi_float64_array},
		{"streams", (void **)&layer->streams, layer->count * 4, napi_uint32_array},
		{"innerOffsets", (void **)&layer->inner_offsets, layer->count * 8, napi_float64_array},
		{"hashes", (void **)&layer->hashes, layer->count * 32, napi_uint8_array},
		{"streamOffsets", (void **)&layer->stream_offsets, layer->stream_count * 8, napi_float64_array},
		{"streamEnds", (void **)&layer->stream_ends, layer->stream_count * 8, napi_float64_array},
		{"streamSizes", (void **)&layer->stream_sizes, layer->stream_count * 8, napi_float64_array},
		{"firstChunks", (void **)&layer->first_chunks, (layer->stream_count + 1) * 4, napi_uint32_array},
		{"streamChunks", (void **)&layer->stream_chunks, layer->count * 4, napi_uint32_array},
		{"image", (void **)&layer->image, layer->image_size, napi_uint8_array},
	};
	for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
		void *memory = *arrays[i].memory;
		*arrays[i].memory = NULL;
		if (!set_array(env, object, arrays[i].name, memory, arrays[i].size, arrays[i].type))
			return false;
	}
	return true;
}

static napi_value result_of(napi_env env, struct layer_job *job)
{
	struct opened_layer *layer = &job->layer;
	napi_value result, message;
	if (napi_create_object(env, &result) != napi_ok || !set_number(env, result, "status", job->status))
		return NULL;
	if (layer->message && (napi_create_string_utf8(env, layer->message, layer->message_size, &message) != napi_ok ||
			       napi_set_named_property(env, result, "message", message) != napi_ok))
		return NULL;
	if (job->status != OPEN_DONE)
		return result;
	if (!set_number(env, result, "count", (double)layer->count) ||
	    !set_number(env, result, "deviceSize", layer->device_size) ||
	    !set_number(env, result, "streamCount", (double)layer->stream_count) ||
	    !set_number(env, result, "prefetchSize", layer->prefetch_size) || !set_arrays(env, result, layer))
		return NULL;
	return result;
}

static void finish_job(napi_env env, napi_status status, void *data)
{
	struct layer_job *job = data;
	napi_handle_scope scope;
	napi_open_handle_scope(env, &scope);
	napi_value result = status == napi_ok ? result_of(env, job) : NULL;
	if (result) {
		napi_resolve_deferred(env, job->deferred, result);
	} else {
		napi_value text, error;
		napi_create_string_utf8(env, "out of memory", NAPI_AUTO_LENGTH, &text);
		napi_create_error(env, NULL, text, &error);
		napi_reject_deferred(env, job->deferred, error);
	}
	napi_close_handle_scope(env, scope);
	free_job(env, job);
}

// The caller's arrays are kept alive by a reference to `args`.
static bool take_arguments(napi_env env, const napi_value *args, struct layer_job *job)
{
	struct layer_task *task = &job->task;
	napi_valuetype hash_type;
	const uint8_t *hash, *aborted;
	size_t hash_size, aborted_size;
	int32_t wrapping;
	int64_t data_end;
	if (!bytes_of(env, args[0], &task->where, &task->where_size) ||
	    napi_get_value_int32(env, args[1], &wrapping) != napi_ok || wrapping < TOC_JSON || wrapping > TOC_ZSTD ||
	    !bytes_of(env, args[2], &task->toc, &task->toc_size) || napi_typeof(env, args[3], &hash_type) != napi_ok ||
	    napi_get_value_int64(env, args[4], &data_end) != napi_ok || data_end < 0 ||
	    napi_get_value_bool(env, args[5], &task->wants_image) != napi_ok ||
	    !bytes_of(env, args[6], &aborted, &aborted_size) || aborted_size != 1)
		return false;
	if (hash_type != napi_undefined) {
		if (!bytes_of(env, args[3], &hash, &hash_size) || hash_size != sizeof job->hash)
			return false;
		memcpy(job->hash, hash, sizeof job->hash);
		task->hash = job->hash;
	}
	task->wrapping = (enum toc_wrapping)wrapping;
	task->data_end = (uint64_t)data_end;
	task->aborted = (const atomic_uchar *)aborted;
	return true;
}

// openLayer(where, wrapping, toc, hash | undefined, dataEnd, wantsImage, aborted): Promise<{status, message, …}>
napi_value js_open_layer(napi_env env, napi_callback_info info)
{
	napi_value args[MAX_ARGS], kept, name, promise;
	struct layer_job *job = calloc(1, sizeof *job);
	if (!job)
		return throw_error(env, "out of memory");
	if (!get_args(env, info, args, 7) || !take_arguments(env, args, job)) {
		free_job(env, job);
		return throw_error(env, "Cannot call native code: wrong arguments");
	}
	bool is_kept = napi_create_array_with_length(env, 7, &kept) == napi_ok;
	for (uint32_t i = 0; is_kept && i < 7; i++)
		is_kept = napi_set_element(env, kept, i, args[i]) == napi_ok;
	if (is_kept && napi_create_reference(env, kept, 1, &job->arguments) == napi_ok &&
	    napi_create_string_utf8(env, "ctr-remote", NAPI_AUTO_LENGTH, &name) == napi_ok &&
	    napi_create_async_work(env, NULL, name, run_job, finish_job, job, &job->work) == napi_ok &&
	    napi_create_promise(env, &job->deferred, &promise) == napi_ok && napi_queue_async_work(env, job->work) == napi_ok)
		return promise;
	free_job(env, job);
	return throw_error(env, "Cannot start native work");
}
