import {expect, it} from 'vitest'
import {codeOf} from '../../src/lib/errors/coded-error.ts'
import {findFile} from '../../src/lib/estargz/find-file.ts'
import {openLayer} from '../../src/lib/estargz/open-layer.ts'
import {convertTar} from '../support/layers.ts'
import {memoryBlob} from '../support/memory-content.ts'
import {archive, directory, member} from '../support/tar.ts'

const link = (name: string, linkName: string) => member({name, typeflag: '1', linkName})

async function find(path: string): Promise<string | undefined> {
  const tar = archive(
    directory('./d/'),
    member({name: './d/file'}, 'contents'),
    link('hard', './d/file'),
    link('harder', '/hard'),
    member({name: 'soft', typeflag: '2', linkName: 'd/file'}),
    link('dangling', 'gone'),
    link('loop', 'pool'),
    link('pool', 'loop'),
  )
  const layer = await openLayer(memoryBlob((await convertTar(tar)).bytes), {where: 'the layer'})
  return findFile(layer, path)?.path
}

it.each(['d/file', '/d/file', './d//file', 'd/../d/file', 'hard', '/harder'])('%s is found', async path =>
  expect(await find(path)).toBe('d/file'),
)

it.each([
  ['d', 'd'],
  ['d/', 'd'],
  ['soft', 'soft'],
  ['gone', undefined],
  ['../d/file', undefined],
  ['.prefetch.landmark', undefined],
])('%s is found as %s', async (path, expected) => expect(await find(path)).toBe(expected))

it.each(['dangling', 'loop'])('%s leads nowhere', async path =>
  expect(await find(path).then(() => 'found', codeOf)).toBe('corrupt'),
)
