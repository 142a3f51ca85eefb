// A tree as an EROFS metadata image (src/lib/erofs).

#ifndef EROFS_H
#define EROFS_H

#include "tree.h"

// Makes the image of the layer that is being opened, over a device of `device_size` bytes.
void encode_erofs(struct opening *opening, const struct tree *tree, uint64_t device_size);

#endif
