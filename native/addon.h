// What the parts of the N-API addon share.

#ifndef ADDON_H
#define ADDON_H

#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_ARGS 8

napi_value throw_error(napi_env env, const char *message);

// The arguments of a call; false when there are fewer than `wanted`.
bool get_args(napi_env env, napi_callback_info info, napi_value *args, size_t wanted);

// A Uint8Array's (or Buffer's) memory.
bool bytes_of(napi_env env, napi_value value, const uint8_t **data, size_t *size);

// `memory`, which JavaScript now owns, as a Uint8Array, Uint32Array or Float64Array of `size` bytes; freed at once when that
// fails.
napi_value array_over(napi_env env, void *memory, size_t size, napi_typedarray_type type);

// layer-addon.c
napi_value js_open_layer(napi_env env, napi_callback_info info);

#endif
