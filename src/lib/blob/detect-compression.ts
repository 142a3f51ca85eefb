// How bytes are compressed, as they say themselves. Media types and file names are claims: builders get them wrong, and
// containerd, Docker and Podman go by the bytes, so that an image with a wrong label runs everywhere.

import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import type {LayerCompression} from '../oci/media-type.ts'

/** What is recognised: what we read, and what is worth a name in an error message. */
export type FoundCompression = LayerCompression | 'xz' | 'bzip2' | 'lz4'

/** The longest magic number that is looked at, bytes. */
export const MAGIC_SIZE = 6

/** Magic numbers as hex digits; those of skippable zstd frames, which may come first, differ in four bits. */
const MAGIC: readonly (readonly [RegExp, FoundCompression])[] = [
  [/^1f8b08/, 'gzip'], // RFC 1952 section 2.3.1; deflate is the only method there is
  [/^(28b52ffd|5[0-9a-f]2a4d18)/, 'zstd'], // RFC 8878 sections 3.1.1 and 3.1.2
  [/^fd377a585a00/, 'xz'], // The .xz File Format, section 2.1.1.1
  [/^425a68[1-9a-f]/, 'bzip2'], // "BZh" and the block size
  [/^04224d18/, 'lz4'], // LZ4 Frame Format
]

/** By the first `MAGIC_SIZE` bytes, or all where there are fewer; what has no magic number is taken for plain. */
export function detectCompression(start: Uint8Array): FoundCompression {
  const hex = Buffer.from(start.subarray(0, MAGIC_SIZE)).toString('hex')
  return MAGIC.find(([pattern]) => pattern.test(hex))?.[1] ?? 'none'
}

/** How a blob is compressed; reads its first bytes. */
export async function compressionOfBlob(blob: BlobSource, options: CallOptions): Promise<FoundCompression> {
  return detectCompression(await blob.read(0, Math.min(MAGIC_SIZE, blob.size), options))
}
