// What came of a conversion: the lines that the reference and nerdctl print, and what they do not tell.

import type {ConvertedImage} from '../lib/convert/convert-image.ts'

/** As `--json` prints it. */
export interface ConversionReport {
  readonly name: string
  readonly digest: string
  readonly mediaType: string
  readonly extraImages: readonly string[]
  readonly layers: readonly LayerReport[]
  /** Paths that were asked to come first and are in no layer. */
  readonly missing: readonly string[]
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

/** At most this many missing paths are named to people; `--json` has all. */
const NAMED_MISSING = 5

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
  return {name, digest, mediaType, extraImages, layers, missing: missingEverywhere(image)}
}

/** Prints the report for people and scripts: extra images and the digest, or nerdctl's JSON. */
export function reportConversion(
  report: ConversionReport,
  output: {
    readonly format: string | undefined
    readonly print: (line: string) => void
    readonly say: (message: string) => void
  },
): void {
  const {missing, name, digest, extraImages} = report
  if (missing.length > 0) {
    const named = missing.slice(0, NAMED_MISSING).map(path => JSON.stringify(path))
    const more = missing.length > NAMED_MISSING ? ', …' : ''
    output.say(`warning: ${missing.length} prioritized paths are in no layer: ${named.join(', ')}${more}`)
  }
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
