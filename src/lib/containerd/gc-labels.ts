// What containerd's garbage collector follows: labels on manifests, indexes and configs that name what they need.

import type {ContentInfo} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import type {ImageDocument} from '../oci/manifest.ts'
import {
  isConfigMediaType,
  isForeignLayer,
  isManifestMediaType,
  layerCompressionOf,
} from '../oci/media-type.ts'

export type Labels = Readonly<Record<string, string>>

/** containerd's docs/garbage-collection.md, "Garbage Collection labels". */
const CONTENT_REF = 'containerd.io/gc.ref.content'
const SNAPSHOT_REF = 'containerd.io/gc.ref.snapshot'
/** When a lease stops counting, RFC 3339. */
export const LEASE_EXPIRES = 'containerd.io/gc.expire'

/**
 * The labels that keep a document's children: `….config`, `….l.0`, `….l.1`, … of a manifest, `….m.0`, … of an index;
 * children of other types are numbered without a letter. Children that are not in the store are labelled all the same,
 * as containerd does: a pull of one platform may be followed by one of another.
 */
export function childLabels(document: ImageDocument): Labels {
  const children =
    document.kind === 'index'
      ? document.index.manifests
      : [document.manifest.config, ...document.manifest.layers]
  const counts = new Map<string, number>()
  const labels: Record<string, string> = {}
  for (const child of children) {
    const prefix = labelPrefix(child)
    const index = counts.get(prefix) ?? 0
    counts.set(prefix, index + 1)
    labels[prefix.endsWith('.') || index > 0 ? `${prefix}${index}` : prefix] = child.digest
  }
  return labels
}

/** The label of a config that keeps the snapshot of its image's topmost layer. */
export function snapshotLabel(snapshotter: string, chainId: Digest): Labels {
  return {[`${SNAPSHOT_REF}.${snapshotter}`]: chainId}
}

/** The snapshotters that keep an image unpacked, by the labels of its config. */
export function snapshottersOf(labels: Labels): string[] {
  const prefix = `${SNAPSHOT_REF}.`
  return Object.keys(labels).flatMap(key => (key.startsWith(prefix) ? [key.slice(prefix.length)] : []))
}

/** Those of `wanted` that a blob does not have yet. */
export function missingLabels(info: ContentInfo, wanted: Labels): Labels {
  return Object.fromEntries(Object.entries(wanted).filter(([key, value]) => info.labels[key] !== value))
}

function labelPrefix({mediaType}: Descriptor): string {
  if (isConfigMediaType(mediaType)) return `${CONTENT_REF}.config`
  if (isManifestMediaType(mediaType)) return `${CONTENT_REF}.m.`
  const isLayer = layerCompressionOf(mediaType) !== undefined || isForeignLayer(mediaType)
  return isLayer ? `${CONTENT_REF}.l.` : `${CONTENT_REF}.`
}
