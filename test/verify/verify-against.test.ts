import {tmpdir} from 'node:os'
import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {encodeJson} from '../../src/lib/oci/manifest.ts'
import {OCI_CONFIG, OCI_LAYER, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {verifyImage} from '../../src/lib/verify/verify-image.ts'
import {buildBlob} from '../support/layers.ts'
import {memoryContent} from '../support/memory-content.ts'
import {writeBlob} from '../support/sample-image.ts'
import {archive, directory, member, pax} from '../support/tar.ts'

const content = memoryContent()
const codec = createBulkCodec()

async function imageOf(layers: readonly {readonly descriptor: Descriptor; readonly diffId: string}[]) {
  const diffIds = layers.map(({diffId}) => diffId)
  const config = await writeBlob(
    content,
    encodeJson({architecture: 'amd64', os: 'linux', rootfs: {type: 'layers', diff_ids: diffIds}}),
    OCI_CONFIG,
  )
  const descriptors = layers.map(({descriptor}) => descriptor)
  const manifest = {schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: descriptors}
  const root = await writeBlob(content, encodeJson(manifest), OCI_MANIFEST)
  return {name: 'an image', content, resolve: async () => root, [Symbol.asyncDispose]: async () => {}}
}

async function plain(tar: Uint8Array) {
  return {descriptor: await writeBlob(content, tar, OCI_LAYER), diffId: digestOf(tar)}
}

async function converted(tar: Uint8Array, prioritizedPaths: readonly string[] = []) {
  const {bytes, descriptor, diffId} = await buildBlob(tar, {prioritizedPaths})
  await writeBlob(content, bytes)
  return {descriptor, diffId}
}

/** What differs between an image of `layers` and its source. */
async function differences(
  layers: Parameters<typeof imageOf>[0],
  source: Parameters<typeof imageOf>[0],
): Promise<string[]> {
  const against = {source: await imageOf(source), temporaryDirectory: tmpdir()}
  const image = await verifyImage(await imageOf(layers), {codec, platforms: 'all', against})
  return image.manifests.flatMap(({findings, layers}) =>
    [...findings, ...layers.flatMap(layer => layer.findings)]
      .filter(({kind}) => kind === 'source')
      .map(({message}) => message),
  )
}

const symlink = (name: string, linkName: string) => member({name, typeflag: '2', linkName})
const link = (name: string, linkName: string) => member({name, typeflag: '1', linkName})
const SOURCE = [
  directory('usr/'),
  directory('usr/lib/'),
  symlink('lib', 'usr/lib'),
  member({name: 'lib/x'}, 'old'),
  member({name: 'usr/lib/x'}, 'new'),
  link('y', 'lib/x'),
  directory('d/'),
]

describe('an image verified against its source', () => {
  it('is the same when it was converted', async () => {
    const tar = archive(...SOURCE)
    expect(await differences([await converted(tar, ['lib/x', 'y'])], [await plain(tar)])).toEqual([])
    expect(await differences([await plain(tar)], [await plain(tar)])).toEqual([])
  })

  const check = (name: string, members: readonly Uint8Array[], ...expected: readonly string[]) =>
    it(`differs in ${name}`, async () => {
      const found = await differences(
        [await converted(archive(...members))],
        [await plain(archive(...SOURCE))],
      )
      expect(found).toEqual(expected)
    })

  const [usr, lib, way, old, fresh, hard, empty] = SOURCE as [
    Buffer,
    Buffer,
    Buffer,
    Buffer,
    Buffer,
    Buffer,
    Buffer,
  ]
  check(
    'contents that another order of two names of a place gives',
    [usr, lib, way, fresh, old, hard, empty],
    '"usr/lib/x" has other contents than in the source',
  )
  check('a missing file', [usr, lib, way, old, fresh, hard], '"d" is in the source alone')
  check('one too many', [...SOURCE, member({name: 'd/z'})], '"d/z" is not in the source')
  check(
    'a mode',
    [usr, lib, way, old, fresh, hard, member({name: 'd/', typeflag: '5', mode: 0o700})],
    '"d" has mode "700", and "755" in the source',
  )
  check(
    'an extended attribute',
    [usr, lib, way, old, fresh, hard, pax({'SCHILY.xattr.user.a': '1'}), empty],
    '"d" has another extended attribute "user.a" than in the source',
  )
  check(
    'a time smaller than a second',
    [usr, lib, way, old, fresh, hard, pax({mtime: '0.5'}), empty],
    '"d" has modification time "0.500000000", and "0.000000000" in the source',
  )
  check(
    'a file that has lost its other name',
    [usr, lib, way, old, fresh, member({name: 'y'}, 'new'), empty],
    '"y" is hard linked to other names than in the source',
  )

  it('differs in the number of layers', async () => {
    const layer = await plain(archive(...SOURCE))
    expect(await differences([layer], [layer, layer])).toEqual(['The image has 1 layers, its source 2'])
  })

  it('cannot be compared in a layer that no runtime can unpack', async () => {
    const found = await differences([await converted(archive(link('a', 'b')))], [await plain(archive())])
    expect(found).toEqual([expect.stringMatching(/^Cannot compare the layer with its source: .*"a"/)])
  })
})
