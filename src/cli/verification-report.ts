// What `image verify` says, to people and to scripts.

import type {VerifiedImage, VerifiedImageLayer} from '../lib/convert/verify-image.ts'
import {formatPlatform} from '../lib/oci/platform.ts'

/** As `--json` prints it. */
export interface VerificationReport {
  readonly name: string
  readonly digest: string
  readonly sound: boolean
  readonly manifests: readonly {
    readonly digest: string
    readonly platform: string | undefined
    readonly layers: readonly LayerVerification[]
  }[]
}

export interface LayerVerification {
  readonly digest: string
  /** `eStargz` and the like; null for a layer that cannot be read lazily. */
  readonly format: string | null
  readonly files: number
  readonly chunks: number
  readonly findings: readonly {readonly kind: string; readonly message: string; readonly path?: string}[]
}

export function describeVerification(name: string, image: VerifiedImage): VerificationReport {
  return {
    name,
    digest: image.root.digest,
    sound: image.sound,
    manifests: image.manifests.map(({digest, platform, layers}) => ({
      digest,
      platform: platform && formatPlatform(platform),
      layers: layers.map(describeLayer),
    })),
  }
}

/** One line for a sound layer, and one more for each thing that is wrong with another. */
export function linesOfVerification(report: VerificationReport): string[] {
  return [
    ...report.manifests.flatMap(({platform, digest, layers}) => [
      `${platform ?? 'unknown platform'} ${digest}`,
      ...layers.flatMap((layer, index) => linesOfLayer(layer, `  layer ${index + 1}/${layers.length}`)),
    ]),
    report.sound ? `${report.name}: sound` : `${report.name}: NOT SOUND`,
  ]
}

function describeLayer({descriptor, format, counts, findings}: VerifiedImageLayer): LayerVerification {
  return {digest: descriptor.digest, format: format ?? null, ...counts, findings}
}

function linesOfLayer(layer: LayerVerification, label: string): string[] {
  const {digest, format, files, chunks, findings} = layer
  const counts = format === null ? 'not lazily readable' : `${format}, ${files} files, ${chunks} chunks`
  const verdict = findings.length === 0 ? 'ok' : `${findings.length} problems`
  return [
    `${label} ${digest}  ${counts}  ${verdict}`,
    ...findings.map(({kind, message}) => `      ${kind}: ${message}`),
  ]
}
