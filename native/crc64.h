// CRC-64/GO-ISO: what tar-split keeps of a file's contents.

#ifndef CRC64_H
#define CRC64_H

#include <stddef.h>
#include <stdint.h>

// The checksum of what came before and of `bytes`; 0 for nothing.
uint64_t crc64_update(uint64_t crc, const uint8_t *bytes, size_t size);

#endif
