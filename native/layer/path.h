// Names of an archive as paths below the layer's root (src/lib/tar/path.ts).

#ifndef PATH_H
#define PATH_H

#include "opening.h"

// `name` without `.`, empty components, and `..` with the component before it; empty for the root. `*climbs` is how many `..`
// no component was left for.
struct text clean_path(struct opening *opening, struct text name, uint32_t *climbs);

// Takes the first component off `*rest`, which is not empty: up to a slash, which goes too.
struct text next_component(struct text *rest);

// Cuts a clean path into its directory and its last component.
void split_path(struct text path, struct text *directory, struct text *base);

#endif
