// The formats that are compared, with the flags of this project and of the reference, which has some of them only.

export interface Format {
  readonly name: string
  readonly flags: readonly string[]
  /** None where the reference (Debian's 0.12) cannot write the format. */
  readonly referenceFlags?: readonly string[]
  /** What the ceiling program does is this format's arithmetic. */
  readonly hasCeiling?: true
}

const external = ['--estargz', '--estargz-external-toc']

export const FORMATS: readonly Format[] = [
  {name: 'estargz', flags: ['--estargz'], referenceFlags: ['--estargz'], hasCeiling: true},
  {name: 'external-toc', flags: external},
  {name: 'external-toc-min-chunk', flags: [...external, '--estargz-min-chunk-size=50000']},
  {name: 'keep-diff-id', flags: [...external, '--estargz-keep-diff-id']},
  {name: 'zstdchunked', flags: ['--zstdchunked'], referenceFlags: ['--zstdchunked']},
  {name: 'zstd', flags: ['--zstd']},
  {name: 'gzip', flags: ['--gzip']},
  {name: 'uncompress', flags: ['--uncompress'], referenceFlags: ['--uncompress']},
]

/** The formats with these names, in the order of the table. */
export function formatsNamed(names: readonly string[]): readonly Format[] {
  const unknown = names.find(name => name !== 'all' && !FORMATS.some(format => format.name === name))
  if (unknown !== undefined) {
    throw new Error(
      `Unknown format "${unknown}": expected all or ${FORMATS.map(({name}) => name).join(', ')}`,
    )
  }
  return names.includes('all') ? FORMATS : FORMATS.filter(({name}) => names.includes(name))
}
