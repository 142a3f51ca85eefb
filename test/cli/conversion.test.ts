import {describe, expect, it} from 'vitest'
import {type ConvertFlags, convertConversion, optimizeConversion} from '../../src/cli/conversion.ts'
import {
  type ConversionReport,
  describeConversion,
  reportConversion,
  summarizeConversion,
} from '../../src/cli/conversion-report.ts'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {ConvertedImage, ConvertedLayer} from '../../src/lib/convert/convert-image.ts'
import type {LayerFormat} from '../../src/lib/convert/layer-format.ts'

const defaults: ConvertFlags & {readonly reuse: boolean} = {
  estargz: false,
  zstdchunked: false,
  uncompress: false,
  gzip: false,
  zstd: false,
  oci: true,
  reuse: false,
  'estargz-compression-level': 9,
  'estargz-chunk-size': 0,
  'estargz-min-chunk-size': 0,
  'estargz-external-toc': false,
  'estargz-keep-diff-id': false,
  'zstdchunked-compression-level': 3,
  'zstdchunked-chunk-size': 0,
  'zstdchunked-dialect': 'podman',
  'zstd-compression-level': 3,
}

const estargz: LayerFormat = {
  kind: 'estargz',
  level: 9,
  chunkSize: 0,
  minChunkSize: 0,
  toc: 'inside',
}

describe('what convert is asked for', () => {
  const check = (flags: Partial<ConvertFlags>, format: LayerFormat, warnings: number) =>
    it(JSON.stringify(flags), () => {
      const conversion = convertConversion({...defaults, ...flags})
      expect(conversion).toMatchObject({format, oci: flags.oci ?? true})
      expect(conversion.warnings).toHaveLength(warnings)
    })
  check({estargz: true}, estargz, 0)
  check({estargz: true, oci: false}, estargz, 1)
  check({estargz: true, 'estargz-gzip-helper': 'igzip'}, estargz, 1)
  check(
    {estargz: true, 'estargz-chunk-size': 4096, 'estargz-min-chunk-size': 50_000},
    {...estargz, chunkSize: 4096, minChunkSize: 50_000},
    0,
  )
  check(
    {estargz: true, 'estargz-external-toc': true, 'estargz-keep-diff-id': true},
    {...estargz, toc: 'outside-lossless'},
    0,
  )
  check(
    {zstdchunked: true, 'zstdchunked-chunk-size': 1024},
    {kind: 'zstdchunked', level: 3, chunkSize: 1024, dialect: 'podman'},
    0,
  )
  check(
    {zstdchunked: true, 'zstdchunked-dialect': 'stargz', 'zstdchunked-compression-level': 9},
    {kind: 'zstdchunked', level: 9, chunkSize: 0, dialect: 'stargz'},
    0,
  )
  check({uncompress: true, oci: false}, {kind: 'plain', compression: 'none', level: 0}, 0)
  check({gzip: true, oci: false}, {kind: 'plain', compression: 'gzip', level: 0}, 0)
  check({zstd: true, 'zstd-compression-level': 19}, {kind: 'plain', compression: 'zstd', level: 19}, 0)
})

describe('what convert refuses', () => {
  const refuse = (flags: Partial<ConvertFlags>, message: RegExp) =>
    it(JSON.stringify(flags), () => {
      expect(() => convertConversion({...defaults, ...flags})).toThrow(message)
    })
  refuse({}, /specify layer converter/)
  refuse({estargz: true, zstdchunked: true}, /--estargz, --zstdchunked lead to conflict/)
  refuse({estargz: true, uncompress: true}, /--estargz, --uncompress lead to conflict/)
  refuse({zstdchunked: true, uncompress: true}, /--zstdchunked, --uncompress lead to conflict/)
  refuse({zstd: true, gzip: true}, /--zstd, --gzip lead to conflict/)
  refuse({zstdchunked: true, oci: false}, /--zstdchunked must be used in conjunction with --oci/)
  refuse({zstd: true, oci: false}, /--zstd must be used in conjunction with --oci/)
  refuse({estargz: true, 'estargz-keep-diff-id': true}, /needs --estargz-external-toc/)
  refuse({estargz: true, 'estargz-gzip-helper': 'zopfli'}, /unknown/)
})

describe('what optimize is asked for', () => {
  it('is eStargz unless zstd:chunked is chosen', () => {
    expect(optimizeConversion(defaults).format).toEqual(estargz)
    expect(optimizeConversion({...defaults, zstdchunked: true}).format.kind).toBe('zstdchunked')
  })
  it('refuses to reuse layers whose TOC would be elsewhere', () => {
    expect(() => optimizeConversion({...defaults, reuse: true, 'estargz-external-toc': true})).toThrow(
      /--reuse/,
    )
  })
})

describe('what came of a conversion', () => {
  const descriptor = (text: string) => ({mediaType: 'm', digest: digestOf(text), size: text.length})
  const layer = (name: string, missing: string[], files = 0): ConvertedLayer => ({
    descriptor: descriptor(`${name} converted`),
    source: descriptor(name),
    diffId: digestOf(name),
    reused: false,
    prioritized: {files, bytes: files * 10, missing, unmoved: [], misread: [], replaced: []},
  })
  const image: ConvertedImage = {
    root: descriptor('root'),
    droppedAttestations: [],
    manifests: [
      {
        source: digestOf('manifest'),
        descriptor: descriptor('manifest'),
        platform: undefined,
        layers: [layer('one', ['b', 'nowhere'], 1), layer('two', ['a', 'nowhere'], 1)],
      },
    ],
  }

  it('a path is missing only when no layer has it', () => {
    expect(describeConversion('image', image).missing).toEqual(['nowhere'])
  })

  it('prints extra images and then the digest', () => {
    const printed: string[] = []
    const said: string[] = []
    reportConversion(describeConversion('image', image, ['image-esgztoc']), {
      format: undefined,
      print: line => printed.push(line),
      say: line => said.push(line),
    })
    expect(printed).toEqual(['extra image: image-esgztoc', image.root.digest])
    expect(said).toEqual([expect.stringMatching(/^warning: 1 .*"nowhere"$/)])
  })

  it('says that attestations are left out', () => {
    const said: string[] = []
    const attested = {...image, manifests: [], droppedAttestations: [descriptor('a'), descriptor('b')]}
    reportConversion(describeConversion('image', attested), {
      format: undefined,
      print: () => {},
      say: line => said.push(line),
    })
    expect(said).toEqual([
      `warning: 2 attestations left out, which vouch for the layers of the source and not for these: ${descriptor('a').digest}, ${descriptor('b').digest}`,
    ])
  })

  it('tells people what was gained', () => {
    const layer = (sourceSize: number, size: number, reused = false) =>
      ({sourceSize, size, reused}) as ConversionReport['layers'][number]
    const check = (layers: ConversionReport['layers'], expected: string) =>
      expect(summarizeConversion({layers}, 12_540)).toBe(expected)
    check([layer(1024, 1126)], '1 layer, 1.0 KiB -> 1.1 KiB (+10.0%), 12.5s')
    check(
      [layer(2048, 1024), layer(2048, 2048, true)],
      '2 layers (1 reused), 4.0 KiB -> 3.0 KiB (-25.0%), 12.5s',
    )
    check([layer(100, 100)], '1 layer, 100 B -> 100 B (+0.0%), 12.5s')
    check([], '0 layers, 0 B -> 0 B, 12.5s')
  })

  it("prints nerdctl's JSON", () => {
    const printed: string[] = []
    reportConversion(describeConversion('image', image, ['extra']), {
      format: 'json',
      print: line => printed.push(line),
      say: () => {},
    })
    expect(JSON.parse(printed.join('\n'))).toEqual({
      Image: `image@${image.root.digest}`,
      ExtraImages: ['extra'],
    })
  })
})
