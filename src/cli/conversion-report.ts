// What came of a conversion: the lines that the reference and nerdctl print, and what they do not tell.

import type {ConvertedImage} from '../lib/convert/convert-image.ts'
import {formatBytes, formatDuration} from './units.ts'

/** As `--json` prints it. */
export interface ConversionReport {
  readonly name: string
  readonly digest: string
  readonly mediaType: string
  readonly extraImages: readonly string[]
  readonly layers: readonly LayerReport[]
  /** Paths that were asked to come first and are in no layer. */
  readonly missing: readonly string[]
  /** Attestations of the source that the new image does not have. */
  readonly droppedAttestations: readonly string[]
  /** Those that stay where they are, because a layer would unpack to something else. */
  readonly unmoved: readonly string[]
  /** Some of the names that readers who go by names alone take for other places. */
  readonly misread: readonly string[]
  /** Files of the image's own in whose place the format has its. */
  readonly replaced: readonly string[]
}

export interface LayerReport {
  readonly manifest: string
  readonly source: string
  readonly digest: string
  readonly sourceSize: number
  readonly size: number
  readonly reused: boolean
  readonly prioritizedFiles: number
  readonly prioritizedBytes: number
}

/** At most this many paths are named to people; `--json` has all. */
const NAMED_PATHS = 5

/** `extraImages` are those that a conversion makes beside the target: that of external TOCs. */
export function describeConversion(
  name: string,
  image: ConvertedImage,
  extraImages: readonly string[] = [],
): ConversionReport {
  const layers = image.manifests.flatMap(manifest =>
    manifest.layers.map(layer => ({
      manifest: manifest.descriptor.digest,
      source: layer.source.digest,
      digest: layer.descriptor.digest,
      sourceSize: layer.source.size,
      size: layer.descriptor.size,
      reused: layer.reused,
      prioritizedFiles: layer.prioritized?.files ?? 0,
      prioritizedBytes: layer.prioritized?.bytes ?? 0,
    })),
  )
  const {digest, mediaType} = image.root
  const droppedAttestations = image.droppedAttestations.map(attestation => attestation.digest)
  const everywhere = (list: 'unmoved' | 'misread' | 'replaced') => [
    ...new Set(
      image.manifests.flatMap(manifest => manifest.layers.flatMap(layer => layer.prioritized?.[list] ?? [])),
    ),
  ]
  return {
    name,
    digest,
    mediaType,
    extraImages,
    layers,
    missing: missingEverywhere(image),
    droppedAttestations,
    unmoved: everywhere('unmoved'),
    misread: everywhere('misread'),
    replaced: everywhere('replaced'),
  }
}

/** What was gained, in one line: `3 layers (1 reused), 98.1 MiB -> 101.4 MiB (+3.4%), 12.5s`. */
export function summarizeConversion({layers}: Pick<ConversionReport, 'layers'>, elapsedMs: number): string {
  const [before, after] = [sum(layers.map(layer => layer.sourceSize)), sum(layers.map(layer => layer.size))]
  const reused = layers.filter(layer => layer.reused).length
  const count = `${layers.length} ${layers.length === 1 ? 'layer' : 'layers'}${reused > 0 ? ` (${reused} reused)` : ''}`
  const percent =
    before === 0 ? '' : ` (${after < before ? '' : '+'}${(((after - before) / before) * 100).toFixed(1)}%)`
  return `${count}, ${formatBytes(before)} -> ${formatBytes(after)}${percent}, ${formatDuration(elapsedMs)}`
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}

/** Says which attestations an image has no more, if any. */
export function sayDroppedAttestations(digests: readonly string[], say: (message: string) => void): void {
  if (digests.length === 0) return
  const [what, vouch] = digests.length > 1 ? ['attestations', 'vouch'] : ['attestation', 'vouches']
  const problem = `left out, which ${vouch} for the layers of the source and not for these`
  say(`warning: ${digests.length} ${what} ${problem}: ${digests.join(', ')}`)
}

/** Prints the report for people and scripts: extra images and the digest, or nerdctl's JSON. */
export function reportConversion(
  report: ConversionReport,
  output: {
    readonly format: string | undefined
    readonly print: (line: string) => void
    readonly say: (message: string) => void
    /** How long it took, where a person watches; scripts are told nothing. */
    readonly elapsedMs?: number | undefined
  },
): void {
  const warn = (paths: readonly string[], problem: string) => {
    if (paths.length === 0) return
    const named = paths.slice(0, NAMED_PATHS).map(path => JSON.stringify(path))
    const more = paths.length > NAMED_PATHS ? ', …' : ''
    output.say(`warning: ${paths.length} ${problem}: ${named.join(', ')}${more}`)
  }
  const {missing, unmoved, misread, replaced, name, digest, extraImages, droppedAttestations} = report
  sayDroppedAttestations(droppedAttestations, output.say)
  warn(missing, 'prioritized paths are in no layer')
  warn(unmoved, 'prioritized paths stay where they are: moved, they would change what their layer unpacks to')
  warn(
    misread,
    'or more names are shown otherwise by stargz-snapshotter, which takes names for places; ours mounts them as runtimes unpack them',
  )
  warn(replaced, "files of the image's own are left out, because the format has files of these names")
  if (output.elapsedMs !== undefined) output.say(summarizeConversion(report, output.elapsedMs))
  if (output.format === 'json') {
    const extra = extraImages.length > 0 ? extraImages : null
    output.print(JSON.stringify({Image: `${name}@${digest}`, ExtraImages: extra}, null, 4))
    return
  }
  for (const extraImage of extraImages) output.print(`extra image: ${extraImage}`)
  output.print(digest)
}

/** One list serves every layer, so a path counts as missing only when each layer with a list misses it. */
function missingEverywhere(image: ConvertedImage): string[] {
  const lists = image.manifests.flatMap(({layers}) =>
    layers.flatMap(layer => layer.prioritized?.missing ?? []),
  )
  const asked = image.manifests.flatMap(({layers}) => layers.filter(layer => layer.prioritized)).length
  const counts = new Map<string, number>()
  for (const path of lists) counts.set(path, (counts.get(path) ?? 0) + 1)
  return [...counts].filter(([, count]) => count === asked).map(([path]) => path)
}
