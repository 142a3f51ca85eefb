// The JSON of a TOC out of what a layer wraps it in.

#ifndef UNWRAP_H
#define UNWRAP_H

#include "opening.h"

// Leaves with OPEN_WRAPPED_OTHERWISE unless the TOC is one member or frame of known size, as all writers make it, and in
// it, for gzip, a tar as they make it.
struct text unwrap_toc(struct opening *opening);

#endif
