// What the flags of `convert` and `optimize` ask for, with the reference's conflicts (reference flags: image convert).

import type {EstargzFormat, LayerFormat, LazyFormat} from '../lib/convert/layer-format.ts'
import {CodedError} from '../lib/errors/coded-error.ts'

/** What is asked for, of the formats that the command has. */
export interface Conversion<Format extends LayerFormat = LayerFormat> {
  readonly format: Format
  readonly oci: boolean
  /** For people, on stderr. */
  readonly warnings: readonly string[]
}

/** The flags that both commands have. */
export interface ConversionFlags {
  readonly 'estargz-compression-level': number
  readonly 'estargz-chunk-size': number
  readonly 'estargz-min-chunk-size': number
  readonly 'estargz-external-toc': boolean
  readonly 'estargz-gzip-helper'?: string | undefined
  readonly zstdchunked: boolean
  readonly 'zstdchunked-compression-level': number
  readonly 'zstdchunked-chunk-size': number
  readonly 'zstdchunked-dialect': 'podman' | 'stargz'
  readonly oci: boolean
}

/** And those that only `convert` has. */
export interface ConvertFlags extends ConversionFlags {
  readonly estargz: boolean
  readonly uncompress: boolean
  readonly gzip: boolean
  readonly zstd: boolean
  readonly 'zstd-compression-level': number
  readonly 'estargz-keep-diff-id': boolean
  readonly 'estargz-record-in'?: string | undefined
}

const CONVERTERS = ['estargz', 'zstdchunked', 'zstd', 'gzip', 'uncompress'] as const

/** What `convert` is asked for; throws `invalid-argument` for what makes no sense together. */
export function convertConversion(flags: ConvertFlags): Conversion {
  const chosen = CONVERTERS.filter(name => flags[name])
  if (chosen.length > 1) {
    const names = chosen.map(name => `--${name}`).join(', ')
    throw invalid(`options ${names} lead to conflict, only one of them can be used`)
  }
  if (flags['estargz-keep-diff-id']) {
    if (!flags['estargz-external-toc']) throw invalid('--estargz-keep-diff-id needs --estargz-external-toc')
    if (flags['estargz-record-in']) {
      throw invalid('--estargz-keep-diff-id keeps the order of files, --estargz-record-in changes it')
    }
  }
  const [converter] = chosen
  if (converter === undefined) {
    throw invalid('specify layer converter: --estargz, --zstdchunked, --zstd, --gzip or --uncompress')
  }
  if (converter === 'zstdchunked' || converter === 'zstd') requireOci(converter, flags)
  const warnings = helperWarnings(flags)
  if (converter === 'estargz' && !flags.oci) {
    warnings.push(
      'warning: --estargz should be used in conjunction with --oci: a Docker image loses the layer annotations, which lazy pulling verifies',
    )
  }
  return {format: formatOf(converter, flags), oci: flags.oci, warnings}
}

function formatOf(converter: (typeof CONVERTERS)[number], flags: ConvertFlags): LayerFormat {
  switch (converter) {
    case 'uncompress':
      return {kind: 'plain', compression: 'none', level: 0}
    case 'gzip':
      return {kind: 'plain', compression: 'gzip', level: 0}
    case 'zstd':
      return {kind: 'plain', compression: 'zstd', level: flags['zstd-compression-level']}
    case 'estargz':
    case 'zstdchunked':
      return lazyFormat(flags)
  }
}

function requireOci(converter: string, flags: {readonly oci: boolean}): void {
  if (flags.oci) return
  throw invalid(`--${converter} must be used in conjunction with --oci: Docker media types cannot name zstd`)
}

/** What `optimize` is asked for. */
export function optimizeConversion(
  flags: ConversionFlags & {readonly reuse: boolean},
): Conversion<LazyFormat> {
  if (flags.reuse && flags['estargz-external-toc']) {
    throw invalid(
      '--reuse cannot be used with --estargz-external-toc: TOCs of reused layers are inside of them',
    )
  }
  if (flags.zstdchunked) requireOci('zstdchunked', flags)
  return {format: lazyFormat(flags), oci: flags.oci, warnings: helperWarnings(flags)}
}

function lazyFormat(
  flags: ConversionFlags & Partial<Pick<ConvertFlags, 'estargz-keep-diff-id'>>,
): LazyFormat {
  if (flags.zstdchunked) {
    return {
      kind: 'zstdchunked',
      level: flags['zstdchunked-compression-level'],
      chunkSize: flags['zstdchunked-chunk-size'],
      dialect: flags['zstdchunked-dialect'],
    }
  }
  return {
    kind: 'estargz',
    level: flags['estargz-compression-level'],
    chunkSize: flags['estargz-chunk-size'],
    minChunkSize: flags['estargz-min-chunk-size'],
    toc: tocPlace(flags),
  }
}

function tocPlace(flags: Parameters<typeof lazyFormat>[0]): EstargzFormat['toc'] {
  if (!flags['estargz-external-toc']) return 'inside'
  return flags['estargz-keep-diff-id'] ? 'outside-lossless' : 'outside'
}

/** The reference runs an external gunzip, because Go's is slow. */
function helperWarnings(flags: ConversionFlags): string[] {
  const helper = flags['estargz-gzip-helper']
  if (!helper) return []
  if (!['pigz', 'igzip', 'gzip'].includes(helper)) {
    throw invalid(`--estargz-gzip-helper ${JSON.stringify(helper)} is unknown: expected pigz, igzip or gzip`)
  }
  return [`note: --estargz-gzip-helper ${helper} is not needed: decompression is built in`]
}

function invalid(problem: string): CodedError {
  return new CodedError('invalid-argument', `Cannot convert: ${problem}`)
}
