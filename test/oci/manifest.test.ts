import {describe, expect, test} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {
  encodeJson,
  MAX_INDEX_ENTRIES,
  MAX_LAYERS,
  MAX_MANIFEST_SIZE,
  parseImageConfig,
  parseImageDocument,
  platformOfConfig,
  toOciMediaType,
} from '../../src/lib/oci/manifest.ts'
import {
  DOCKER_LIST,
  DOCKER_MANIFEST,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER,
  OCI_MANIFEST,
} from '../../src/lib/oci/media-type.ts'

const descriptor = (mediaType: string) => ({mediaType, digest: digestOf(mediaType), size: 3})
const MANIFEST = {
  schemaVersion: 2,
  mediaType: OCI_MANIFEST,
  config: descriptor(OCI_CONFIG),
  layers: [descriptor(OCI_LAYER)],
}
const INDEX = {schemaVersion: 2, mediaType: OCI_INDEX, manifests: [descriptor(OCI_MANIFEST)]}
const without = (document: object, key: string) => ({...document, [key]: undefined})

const parse = (document: unknown, mediaType: string) => {
  const raw = typeof document === 'string' || document instanceof Uint8Array
  return parseImageDocument(raw ? Buffer.from(document) : encodeJson(document), mediaType, 'it')
}

describe('documents', () => {
  test('a manifest is a manifest, with what nobody knows kept', () => {
    const manifest = {...MANIFEST, annotations: {a: 'b'}, subject: descriptor(OCI_MANIFEST)}
    expect(parse(manifest, OCI_MANIFEST)).toEqual({kind: 'manifest', manifest})
  })
  test('an index is an index', () => expect(parse(INDEX, OCI_INDEX)).toEqual({kind: 'index', index: INDEX}))
  test("Go's null is a list of nothing", () => {
    expect(parse({...MANIFEST, layers: null}, OCI_MANIFEST)).toMatchObject({manifest: {layers: []}})
    expect(parse({...INDEX, manifests: null}, OCI_INDEX)).toMatchObject({index: {manifests: []}})
  })
  test('a media type is filled in from the descriptor', () =>
    expect(parse(without(MANIFEST, 'mediaType'), DOCKER_MANIFEST)).toMatchObject({
      manifest: {mediaType: DOCKER_MANIFEST},
    }))
  test('without any media type, the content decides', () => {
    expect(parse(without(MANIFEST, 'mediaType'), '')).toMatchObject({manifest: {mediaType: OCI_MANIFEST}})
    expect(parse(without(INDEX, 'mediaType'), '')).toMatchObject({index: {mediaType: OCI_INDEX}})
  })
  test('an index may be empty', () => expect(parse({...INDEX, manifests: []}, OCI_INDEX).kind).toBe('index'))

  test.each([
    ['nothing', '', OCI_MANIFEST],
    ['half of a document', JSON.stringify(MANIFEST).slice(0, 40), OCI_MANIFEST],
    ['a list', [], OCI_MANIFEST],
    ['null', 'null', OCI_MANIFEST],
    ['bytes that are no UTF-8', Buffer.from('{"mediaType":"\xff"}', 'latin1'), OCI_MANIFEST],
    ['a manifest that calls itself an index', {...MANIFEST, mediaType: OCI_INDEX}, OCI_MANIFEST],
    ['a manifest and index at once', {...MANIFEST, ...INDEX, mediaType: undefined}, OCI_INDEX],
    ['a manifest without layers', without(MANIFEST, 'layers'), OCI_MANIFEST],
    ['a manifest without config', without(MANIFEST, 'config'), OCI_MANIFEST],
    ['layers that are no list', {...MANIFEST, layers: {}}, OCI_MANIFEST],
    ['a malformed layer', {...MANIFEST, layers: [{...descriptor(OCI_LAYER), size: -1}]}, OCI_MANIFEST],
    [
      'too many layers',
      {...MANIFEST, layers: Array(MAX_LAYERS + 1).fill(descriptor(OCI_LAYER))},
      OCI_MANIFEST,
    ],
    ['an index without manifests', without(INDEX, 'manifests'), OCI_INDEX],
    [
      'too many manifests',
      {...INDEX, manifests: Array(MAX_INDEX_ENTRIES + 1).fill(descriptor(OCI_MANIFEST))},
      OCI_INDEX,
    ],
    ['too many bytes', ' '.repeat(MAX_MANIFEST_SIZE + 1), OCI_MANIFEST],
  ])('%s is corrupt', (_, document, mediaType) => {
    expect(() => parse(document, mediaType)).toThrow(expect.objectContaining({code: 'corrupt'}))
  })

  test.each([
    ['schema 1', {schemaVersion: 1, fsLayers: []}, ''],
    ['an unknown type', {...MANIFEST, mediaType: 'application/x'}, ''],
  ])('%s is unsupported', (_, document, mediaType) => {
    expect(() => parse(document, mediaType)).toThrow(expect.objectContaining({code: 'unsupported'}))
  })

  test("the OCI counterparts of Docker's types", () => {
    expect([DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, 'x'].map(toOciMediaType)).toEqual([
      OCI_INDEX,
      OCI_MANIFEST,
      OCI_INDEX,
      'x',
    ])
  })
})

describe('configs', () => {
  const CONFIG = {
    architecture: 'arm64',
    os: 'linux',
    variant: 'v8',
    rootfs: {type: 'layers', diff_ids: [digestOf('a')]},
  }
  const parseConfig = (value: unknown) => parseImageConfig(encodeJson(value), 'it')

  test('a config is accepted with what nobody knows', () => {
    const config = {
      ...CONFIG,
      config: {Env: ['A=b'], Cmd: null, Labels: {}},
      history: [{created_by: 'x'}],
      future: 1,
    }
    expect(parseConfig(config)).toEqual(config)
  })
  test.each([
    ['null diff_ids', {...CONFIG, rootfs: {type: 'layers', diff_ids: null}}],
    ['no diff_ids', {...CONFIG, rootfs: {type: 'layers'}}],
    ['a null rootfs', {...CONFIG, rootfs: null}],
    ['no rootfs', without(CONFIG, 'rootfs')],
  ])('%s, as Go writes for an image without layers, is none', (_, value) =>
    expect(parseConfig(value)).toEqual({...CONFIG, rootfs: {type: 'layers', diff_ids: []}}),
  )
  test('its platform is normalised', () =>
    expect(platformOfConfig(parseConfig(CONFIG))).toEqual({os: 'linux', architecture: 'arm64'}))

  test.each([
    ['a rootfs that is text', {...CONFIG, rootfs: 'layers'}],
    ['diff_ids that are no list', {...CONFIG, rootfs: {diff_ids: {}}}],
    ['diff_ids that are no digests', {...CONFIG, rootfs: {diff_ids: ['x']}}],
    ['no architecture', without(CONFIG, 'architecture')],
    ['no os', without(CONFIG, 'os')],
    ['a config that is a list', {...CONFIG, config: []}],
    ['Env that is text', {...CONFIG, config: {Env: 'A=b'}}],
    ['Cmd with a number', {...CONFIG, config: {Cmd: [1]}}],
    ['User that is a number', {...CONFIG, config: {User: 0}}],
    ['history that is no list', {...CONFIG, history: {}}],
    ['history of text', {...CONFIG, history: ['x']}],
  ])('%s is corrupt', (_, value) => {
    expect(() => parseConfig(value)).toThrow(expect.objectContaining({code: 'corrupt'}))
  })
})
