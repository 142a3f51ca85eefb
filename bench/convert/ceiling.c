// How fast conversion could be: one core that does nothing but what the format asks for. Reads gzip layers whole, inflates
// them with libdeflate, hashes the tar, hashes and compresses each file's bytes (in pieces of at most 4 MiB) as a gzip
// member, hashes the output. No TOC, no order, no memory bound, no process around it: a converter can only come near.
//
// usage: ceiling LEVEL LAYER.tar.gz…      prints, for all layers: tar bytes, output bytes

#include <libdeflate.h>
#include <openssl/sha.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 512, CHUNK = 4 << 20 };

struct bytes {
    unsigned char *data;
    size_t size;
};

static void fail(const char *what) {
    fprintf(stderr, "ceiling: %s\n", what);
    exit(1);
}

static struct bytes allocate(size_t size) {
    struct bytes bytes = {malloc(size ? size : 1), size};
    if (!bytes.data) fail("out of memory");
    return bytes;
}

static struct bytes read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) fail(path);
    struct bytes bytes = allocate((size_t)ftell(file));
    rewind(file);
    if (fread(bytes.data, 1, bytes.size, file) != bytes.size) fail(path);
    fclose(file);
    return bytes;
}

// A layer may be several gzip members; the output grows as they turn out.
static struct bytes inflate_layer(struct bytes layer) {
    struct libdeflate_decompressor *inflater = libdeflate_alloc_decompressor();
    struct bytes tar = allocate(layer.size * 4);
    size_t in = 0, out = 0;
    while (in < layer.size) {
        size_t used, made;
        enum libdeflate_result result = libdeflate_gzip_decompress_ex(
            inflater, layer.data + in, layer.size - in, tar.data + out, tar.size - out, &used, &made);
        if (result == LIBDEFLATE_INSUFFICIENT_SPACE) {
            tar.size *= 2;
            tar.data = realloc(tar.data, tar.size);
            if (!tar.data) fail("out of memory");
            continue;
        }
        if (result != LIBDEFLATE_SUCCESS) fail("not a gzip layer");
        in += used;
        out += made;
    }
    libdeflate_free_decompressor(inflater);
    tar.size = out;
    return tar;
}

// A number of a tar header: octal, or base-256 for what octal has no room for.
static uint64_t parse_number(const unsigned char *field, size_t length) {
    uint64_t value = 0;
    if (field[0] & 0x80) {
        for (size_t i = 1; i < length; i++) value = value << 8 | field[i];
        return value;
    }
    for (size_t i = 0; i < length; i++)
        if (field[i] >= '0' && field[i] <= '7') value = value << 3 | (uint64_t)(field[i] - '0');
    return value;
}

struct output {
    struct libdeflate_compressor *deflater;
    struct bytes buffer;
    SHA256_CTX digest;
    uint64_t size;
};

static void write_member(struct output *output, const unsigned char *data, size_t size) {
    size_t made = libdeflate_gzip_compress(output->deflater, data, size, output->buffer.data, output->buffer.size);
    if (made == 0) fail("a member does not fit");
    SHA256_Update(&output->digest, output->buffer.data, made);
    output->size += made;
}

// As eStargz lays a layer out: headers gather in a member, each piece of a file opens the next.
static uint64_t convert_layer(struct bytes tar, int level) {
    unsigned char digest[SHA256_DIGEST_LENGTH];
    struct output output = {.deflater = libdeflate_alloc_compressor(level)};
    output.buffer = allocate(libdeflate_gzip_compress_bound(output.deflater, CHUNK + (1 << 20)));
    SHA256_Init(&output.digest);
    SHA256(tar.data, tar.size, digest); // the diff ID

    size_t member = 0, at = 0;
    while (at + BLOCK <= tar.size) {
        const unsigned char *header = tar.data + at;
        uint64_t size = header[156] == '5' || header[156] == '2' || header[156] == '1' ? 0 : parse_number(header + 124, 12);
        size_t payload = at + BLOCK, end = payload + size;
        if (end > tar.size) break;
        int file = header[156] == '0' || header[156] == '\0';
        while (file && payload < end) {
            size_t piece = end - payload < CHUNK ? end - payload : CHUNK;
            write_member(&output, tar.data + member, payload - member);
            SHA256(tar.data + payload, piece, digest); // the chunk digest
            member = payload;
            payload += piece;
        }
        at += BLOCK + (size + BLOCK - 1) / BLOCK * BLOCK;
    }
    write_member(&output, tar.data + member, tar.size - member);
    SHA256_Final(digest, &output.digest); // the blob's digest
    libdeflate_free_compressor(output.deflater);
    free(output.buffer.data);
    return output.size;
}

int main(int argc, char **argv) {
    if (argc < 3) fail("usage: ceiling LEVEL LAYER.tar.gz...");
    uint64_t tar_bytes = 0, output_bytes = 0;
    for (int i = 2; i < argc; i++) {
        struct bytes layer = read_file(argv[i]);
        struct bytes tar = inflate_layer(layer);
        free(layer.data);
        tar_bytes += tar.size;
        output_bytes += convert_layer(tar, atoi(argv[1]));
        free(tar.data);
    }
    printf("%llu %llu\n", (unsigned long long)tar_bytes, (unsigned long long)output_bytes);
    return 0;
}
