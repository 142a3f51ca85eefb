// Where things are in a layout directory (OCI image-spec image-layout.md), and what we keep beside them.

import {join} from 'node:path'
import {type Digest, hexOf} from '../oci/digest.ts'

export interface LayoutPaths {
  readonly root: string
  readonly marker: string
  readonly index: string
  readonly blobs: string
  /** Ours. Other tools ignore it, and without it nothing is lost but labels. */
  readonly lock: string
  readonly ingest: string
  readonly leases: string
  readonly labels: string
}

export function layoutPaths(root: string): LayoutPaths {
  const own = join(root, '.ctr-remote')
  return {
    root,
    marker: join(root, 'oci-layout'),
    index: join(root, 'index.json'),
    blobs: join(root, 'blobs', 'sha256'),
    lock: join(own, 'lock'),
    ingest: join(own, 'ingest'),
    leases: join(own, 'leases'),
    labels: join(own, 'labels'),
  }
}

export function blobPath(paths: LayoutPaths, digest: Digest): string {
  return join(paths.blobs, hexOf(digest))
}

export function labelsPath(paths: LayoutPaths, digest: Digest): string {
  return join(paths.labels, `${hexOf(digest)}.json`)
}
