// What `image verify` says, to people and to scripts.

import {formatPlatform} from '../lib/oci/platform.ts'
import type {VerifiedImage, VerifiedImageLayer} from '../lib/verify/verify-image.ts'
import {shortenDigests} from './digests.ts'

/** As `--json` prints it. */
export interface VerificationReport {
  readonly name: string
  readonly digest: string
  readonly sound: boolean
  readonly manifests: readonly {
    readonly digest: string
    readonly platform: string | undefined
    readonly findings: LayerVerification['findings']
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
    manifests: image.manifests.map(({digest, platform, findings, layers}) => ({
      digest,
      platform: platform && formatPlatform(platform),
      findings,
      layers: layers.map(describeLayer),
    })),
  }
}

/** How a verdict looks. */
export interface Paint {
  good(text: string): string
  bad(text: string): string
}

const PLAIN: Paint = {good: text => text, bad: text => text}

/** One line for a sound layer, and one more for each thing that is wrong with another; digests are short unless `whole`. */
export function linesOfVerification(
  report: VerificationReport,
  {whole, paint = PLAIN}: {readonly whole: boolean; readonly paint?: Paint | undefined},
): string[] {
  const lines = [
    ...report.manifests.flatMap(({platform, digest, findings, layers}) => [
      `${platform ?? 'unknown platform'} ${digest}`,
      ...findings.map(({kind, message}) => `  ${kind}: ${message}`),
      ...layers.flatMap((layer, index) =>
        linesOfLayer(layer, `  layer ${index + 1}/${layers.length}`, paint),
      ),
    ]),
  ]
  const verdict = `${report.name}: ${report.sound ? paint.good('sound') : paint.bad('NOT SOUND')}`
  return [...(whole ? lines : lines.map(shortenDigests)), verdict]
}

function describeLayer({descriptor, format, counts, findings}: VerifiedImageLayer): LayerVerification {
  return {digest: descriptor.digest, format: format ?? null, ...counts, findings}
}

function linesOfLayer(layer: LayerVerification, label: string, paint: Paint): string[] {
  const {digest, format, files, chunks, findings} = layer
  const counts = format === null ? 'not lazily readable' : `${format}, ${files} files, ${chunks} chunks`
  const verdict = findings.length === 0 ? paint.good('ok') : paint.bad(`${findings.length} problems`)
  return [
    `${label} ${digest}  ${counts}  ${verdict}`,
    ...findings.map(({kind, message}) => `      ${kind}: ${message}`),
  ]
}
