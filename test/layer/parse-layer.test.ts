import {expect, it} from 'vitest'
import {GZIP_DECOMPRESSORS} from '../../src/lib/estargz/decompressor.ts'
import {encodeExternalTocFooter} from '../../src/lib/estargz/footer.ts'
import {createLayerParser, parseTree} from '../../src/lib/layer/parse-layer.ts'

/** A layer of empty files with its TOC outside. */
function taskOf(files: number) {
  const tail = encodeExternalTocFooter()
  const entries = Array.from({length: files}, (_, index) => `{"name":"${index}","type":"reg"}`)
  return {
    where: 'the layer',
    blobSize: tail.length,
    tail,
    externalToc: Buffer.from(`{"version":1,"entries":[${entries}]}`),
    tocDigest: undefined,
    wantsImage: false,
  }
}

it('a tree of files is made for whoever serves them one by one, unless it would take all the memory', async () => {
  const tree = await parseTree(taskOf(3), GZIP_DECOMPRESSORS, {})
  expect([...tree.children.keys()]).toEqual(['0', '1', '2'])
  await expect(parseTree(taskOf(400_001), GZIP_DECOMPRESSORS, {})).rejects.toMatchObject({
    code: 'unsupported',
    message: expect.stringContaining('400001 files'),
  })
})

it('parsing does not begin for who has given up', async () => {
  const signal = AbortSignal.abort(new Error('Enough'))
  await expect(parseTree(taskOf(1), GZIP_DECOMPRESSORS, {signal})).rejects.toThrow('Enough')
  await expect(createLayerParser(GZIP_DECOMPRESSORS)(taskOf(1), {signal})).rejects.toThrow('Enough')
})
