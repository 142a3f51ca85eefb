import {describe, expect, it} from 'vitest'
import {encodeLabels, parseLabels, requestForNeighbour} from '../../src/lib/layer/layer-request.ts'

const A = `sha256:${'a'.repeat(64)}`
const B = `sha256:${'b'.repeat(64)}`
const RPULL = {
  'containerd.io/snapshot/remote/stargz.reference': 'registry.example/app:1',
  'containerd.io/snapshot/remote/stargz.digest': A,
  'containerd.io/snapshot/remote/stargz.layers': `${A},${B}`,
}
const CRI = {
  'containerd.io/snapshot/cri.image-ref': 'registry.example/other:2',
  'containerd.io/snapshot/cri.layer-digest': B,
  'containerd.io/snapshot/cri.image-layers': B,
}

describe('the labels of a snapshot', () => {
  it('are those of rpull, or those of CRI, which go first', () => {
    expect(parseLabels(RPULL)).toMatchObject({
      reference: 'registry.example/app:1',
      digest: A,
      neighbours: [{digest: A}, {digest: B}],
    })
    expect(parseLabels({...RPULL, ...CRI})).toMatchObject({reference: 'registry.example/other:2', digest: B})
  })

  it('are of the set that is complete, because builders give parts of the other', () => {
    const {'containerd.io/snapshot/cri.layer-digest': _, ...buildkit} = CRI
    expect(parseLabels({...RPULL, ...buildkit})).toMatchObject({
      reference: 'registry.example/app:1',
      digest: A,
      neighbours: [{digest: A}, {digest: B}],
    })
    const {'containerd.io/snapshot/remote/stargz.reference': __, ...rest} = RPULL
    expect(parseLabels({...rest, ...CRI})).toMatchObject({reference: 'registry.example/other:2', digest: B})
  })

  it('that are of no complete set are told by what they lack', () => {
    const messageOf = (labels: Record<string, string>) => {
      try {
        return JSON.stringify(parseLabels(labels))
      } catch (error) {
        return (error as Error).message
      }
    }
    const lacks = 'Cannot mount a layer lazily: its snapshot has no label'
    const {'containerd.io/snapshot/cri.layer-digest': _, ...buildkit} = CRI
    expect(messageOf(buildkit)).toBe(`${lacks} "containerd.io/snapshot/cri.layer-digest"`)
    expect(messageOf({'containerd.io/snapshot/remote/stargz.digest': A})).toBe(
      `${lacks} "containerd.io/snapshot/remote/stargz.reference"`,
    )
    expect(messageOf({})).toBe(
      `${lacks} "containerd.io/snapshot/cri.image-ref" and "containerd.io/snapshot/cri.layer-digest", ` +
        'and none "containerd.io/snapshot/remote/stargz.reference" and "containerd.io/snapshot/remote/stargz.digest"',
    )
  })

  it('say what is verified and prefetched', () => {
    expect(parseLabels(RPULL)).toMatchObject({
      tocDigest: undefined,
      prefetchSize: undefined,
      skipVerify: false,
    })
    const labels = {
      ...RPULL,
      'containerd.io/snapshot/stargz/toc.digest': B,
      'containerd.io/snapshot/remote/stargz.prefetch': '1234',
      'containerd.io/snapshot/remote/stargz.skipverify': 'true',
    }
    expect(parseLabels(labels)).toMatchObject({tocDigest: B, prefetchSize: 1234, skipVerify: true})
  })

  it('tell what a start reads of the layer, and of those above it where rpull is ours', () => {
    expect(parseLabels(RPULL)).toMatchObject({prefetchPlan: undefined, isPlanAwaited: false})
    const own = parseLabels({...RPULL, 'containerd.io/snapshot/ctr-remote/prefetch.plan': '1.AAAB'})
    expect(own.prefetchPlan).toBe('1.AAAB')
    // Others of the image have a plan, too, which their own labels tell.
    expect(requestForNeighbour(own, own.neighbours[1]!)).toMatchObject({
      digest: B,
      prefetchPlan: undefined,
      isPlanAwaited: true,
    })
    const all = parseLabels(encodeLabels({...own, neighbours: [{...own.neighbours[1]!, prefetchPlan: '1.'}]}))
    expect(requestForNeighbour(all, all.neighbours[0]!)).toMatchObject({
      digest: B,
      prefetchPlan: '1.',
      isPlanAwaited: false,
    })
  })

  it('may have the TOC digest under a key that Podman does not know', () => {
    const own = {...RPULL, 'containerd.io/snapshot/ctr-remote/toc.digest': A}
    expect(parseLabels(own).tocDigest).toBe(A)
    expect(parseLabels({...own, 'containerd.io/snapshot/stargz/toc.digest': B}).tocDigest).toBe(B)
  })

  it('tell the TOC digests of the other layers, where rpull is ours', () => {
    const tocs = {...RPULL, 'containerd.io/snapshot/remote/stargz.toc-digests': `-,${A}`}
    expect(parseLabels(tocs).neighbours).toEqual([
      {digest: A, tocDigest: undefined, size: undefined, urls: []},
      {digest: B, tocDigest: A, size: undefined, urls: []},
    ])
    const sizes = {...tocs, 'containerd.io/snapshot/remote/stargz.sizes': '-5,700'}
    expect(parseLabels(sizes).neighbours.map(({size}) => size)).toEqual([undefined, 700])
  })

  it('tell where else the layers are, and say the same again when they are written', () => {
    const labels = {
      ...RPULL,
      'containerd.io/snapshot/remote/urls': 'ipfs://x,https://y',
      'containerd.io/snapshot/remote/urls.1': 'ipfs://z',
    }
    const request = parseLabels(labels)
    expect(request.urls).toEqual(['ipfs://x', 'https://y'])
    expect(request.neighbours.map(({urls}) => urls)).toEqual([[], ['ipfs://z']])
    expect(parseLabels(encodeLabels(request))).toEqual(request)
    expect(parseLabels(RPULL).urls).toEqual([])
  })

  it('that name no layer are no lazy layer', () => {
    expect(() => parseLabels({})).toThrow(expect.objectContaining({code: 'unsupported'}))
    const {'containerd.io/snapshot/remote/stargz.digest': _, ...rest} = RPULL
    expect(() => parseLabels(rest)).toThrow(expect.objectContaining({code: 'unsupported'}))
  })

  it('that make no sense are refused or passed over', () => {
    const digest = (value: string) => ({...RPULL, 'containerd.io/snapshot/remote/stargz.digest': value})
    for (const value of ['x', 'sha256:../../etc', `${A}/`, `sha512:${'a'.repeat(128)}`]) {
      expect(() => parseLabels(digest(value))).toThrow(expect.objectContaining({code: 'invalid-argument'}))
    }
    const odd = {
      ...RPULL,
      'containerd.io/snapshot/remote/stargz.layers': `${A},,rubbish,../x`,
      'containerd.io/snapshot/remote/stargz.prefetch': '-1',
    }
    expect(parseLabels(odd)).toMatchObject({neighbours: [{digest: A}], prefetchSize: undefined})
  })
})
