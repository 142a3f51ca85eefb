// An image drawn as a tree: its documents, and the layers with what makes them lazy.

import type {ManifestSummary} from '../lib/image/image-summary.ts'
import {EXTERNAL_TOC_LAYER, TOC_DIGEST} from '../lib/oci/annotations.ts'
import type {Descriptor} from '../lib/oci/descriptor.ts'
import {shortenDigests} from './digests.ts'
import {formatBytes} from './units.ts'

/** A line of the tree and what hangs below it. */
interface Branch {
  readonly text: string
  readonly below: readonly Branch[]
}

/** Lines about an image whose root is `root`; digests are short unless `whole`. */
export function drawImage(
  name: string,
  root: Descriptor,
  summaries: readonly ManifestSummary[],
  {whole}: {readonly whole: boolean},
): string {
  const isIndex = summaries.length !== 1 || summaries[0]!.descriptor.digest !== root.digest
  const manifests = summaries.map(branchOf)
  const below = isIndex ? [{text: describe(root), below: manifests}] : manifests
  const drawn = drawBelow(below, '').join('\n')
  return `${name}\n${whole ? drawn : shortenDigests(drawn)}`
}

function branchOf({descriptor, platform, manifest}: ManifestSummary): Branch {
  const text = `${describe(descriptor)}${platform ? `  ${platform}` : ''}${manifest ? '' : '  not in the store'}`
  if (!manifest) return {text, below: []}
  const blobs = [manifest.config, ...manifest.layers]
  return {text, below: blobs.map(blob => ({text: describe(blob), below: annotationsOf(blob)}))}
}

function describe({mediaType, digest, size}: Descriptor): string {
  return `${mediaType} ${digest}  ${formatBytes(size)}`
}

function annotationsOf({annotations = {}}: Descriptor): Branch[] {
  return [TOC_DIGEST, EXTERNAL_TOC_LAYER]
    .filter(key => annotations[key] !== undefined)
    .map(key => ({text: `${key}=${annotations[key]}`, below: []}))
}

function drawBelow(branches: readonly Branch[], indent: string): string[] {
  return branches.flatMap((branch, index) => {
    const last = index === branches.length - 1
    const line = `${indent}${last ? '└── ' : '├── '}${branch.text}`
    return [line, ...drawBelow(branch.below, `${indent}${last ? '    ' : '│   '}`)]
  })
}
