// SHA-256 by OpenSSL's functions for it alone: they need nothing of the rest, so that what is linked statically is small. Its
// own SHA256() is another that brings everything.
#ifndef SHA256_H
#define SHA256_H

#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>
#include <stddef.h>
#include <stdint.h>

// Returns hash.
static inline uint8_t *sha256_of(const void *bytes, size_t size, uint8_t *hash)
{
	SHA256_CTX context;
	SHA256_Init(&context);
	SHA256_Update(&context, bytes, size);
	SHA256_Final(hash, &context);
	return hash;
}

#endif
