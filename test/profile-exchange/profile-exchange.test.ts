import {readFile, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, it, onTestFinished} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {readImageTree} from '../../src/lib/image/image-tree.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import type {Digest} from '../../src/lib/oci/digest.ts'
import {encodeJson, referrersTag} from '../../src/lib/oci/manifest.ts'
import {OCI_EMPTY, OCI_INDEX, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {pullProfiles, pushProfile} from '../../src/lib/profile-exchange/profile-exchange.ts'
import {PROFILE_ARTIFACT, PROFILE_LAYER, profileLayerOf} from '../../src/lib/record/profile-artifact.ts'
import type {RecordEntry} from '../../src/lib/record/record-file.ts'
import {openRegistry} from '../../src/lib/registry/registry.ts'
import type {Repository} from '../../src/lib/registry/repository.ts'
import {serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {createUser} from '../support/ctr-remote.ts'
import {startDockerRegistry} from '../support/docker-registry.ts'
import {describeWith} from '../support/requires.ts'
import {writeBlob, writeSampleImage} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

/** The address of a registry that ends with the test. */
type Start = () => Promise<string>

const startOurs: Start = async () => {
  const store = await openLocalStore(await temporaryDirectory())
  const server = await serveRegistry(store)
  onTestFinished(async () => {
    await server[Symbol.asyncDispose]()
    await store[Symbol.asyncDispose]()
  })
  return server.address
}

const startDocker: Start = async () => {
  const server = await startDockerRegistry()
  onTestFinished(() => server[Symbol.asyncDispose]())
  return server.host
}

interface Scene {
  readonly host: string
  readonly repository: Repository
  readonly image: Descriptor
  /** What was asked, `GET /v2/…`. */
  readonly requests: string[]
}

async function scene(start: Start): Promise<Scene> {
  const host = await start()
  const requests: string[] = []
  const registry = openRegistry({
    onRequest: ({method, url}) => requests.push(`${method} ${new URL(url).pathname}`),
  })
  onTestFinished(() => registry[Symbol.asyncDispose]())
  const repository = registry.repository(`${host}/team/app`, {access: 'push'})
  const {root} = await writeSampleImage(repository.content)
  await repository.tag(root, '1')
  return {host, repository, image: root, requests}
}

const manifestsOf = async ({repository, image}: Scene) =>
  (await readImageTree(repository.content, image, 'all')).manifests

const entry = (manifestDigest: Digest, path: string, atMs: number): RecordEntry => ({
  path,
  manifestDigest,
  layerIndex: 0,
  reads: [{offset: 0, end: 100, atMs}],
})

const pathsOf = (entries: readonly RecordEntry[]) => entries.map(({path}) => path)

/** Lists `manifest` as a referrer of the image, by the tag that clients write. */
async function refer({repository, image}: Scene, manifest: Uint8Array): Promise<void> {
  const {digest, size} = await repository.putManifest(digestOf(manifest), {
    mediaType: OCI_MANIFEST,
    bytes: manifest,
  })
  const listed = {mediaType: OCI_MANIFEST, digest, size, artifactType: PROFILE_ARTIFACT}
  const bytes = encodeJson({schemaVersion: 2, mediaType: OCI_INDEX, manifests: [listed]})
  await repository.putManifest(referrersTag(image.digest), {mediaType: OCI_INDEX, bytes})
}

function exchange(start: Start) {
  it('profiles are found beside the image, several as one', async () => {
    const at = await scene(start)
    const {repository, image} = at
    const manifests = await manifestsOf(at)
    await expect(pullProfiles(repository, manifests)).rejects.toMatchObject({code: 'not-found'})
    const push = (...entries: RecordEntry[]) => pushProfile(repository, manifests, entries)
    const [first] = await push(entry(image.digest, 'a.txt', 30))
    expect(first).toMatchObject({subject: image.digest, files: 1})
    await push(entry(image.digest, 'b.txt', 10))
    // Once more is the same artifact.
    expect(await push(entry(image.digest, 'a.txt', 30))).toEqual([first])
    expect(pathsOf(await pullProfiles(repository, manifests))).toEqual(['b.txt', 'a.txt'])
    expect((await repository.resolve('1')).digest).toBe(image.digest)
  })

  it('profiles of many workloads are all there', async () => {
    const at = await scene(start)
    const manifests = await manifestsOf(at)
    for (const name of ['a', 'b', 'c']) {
      await pushProfile(at.repository, manifests, [entry(at.image.digest, name, 1)])
    }
    expect(pathsOf(await pullProfiles(at.repository, manifests)).sort()).toEqual(['a', 'b', 'c'])
  })

  it('the profile of another image is refused', async () => {
    const at = await scene(start)
    const manifests = await manifestsOf(at)
    const other = digestOf('another image')
    await expect(pushProfile(at.repository, manifests, [entry(other, 'a', 1)])).rejects.toMatchObject({
      code: 'invalid-argument',
      message: expect.stringContaining(`it is of ${other}, not of this image (${at.image.digest})`),
    })
    // Without a manifest's digest, as people write records, it is of whatever image it is pushed to.
    expect(await pushProfile(at.repository, manifests, [{path: 'a'}])).toMatchObject([{files: 1}])
  })

  it.each([
    ['of another subject', {subject: digestOf('another')}, /it is a profile of sha256:\w+, not of/],
    ['without a subject', {subject: undefined}, /it is a profile of nothing/],
    ['of another type', {artifactType: 'text/plain'}, /it is no artifact of type/],
    ['without a profile', {layers: 0}, /it has not one profile/],
    ['of two profiles', {layers: 2}, /it has not one profile/],
    ['that is no text', {profile: Buffer.from([0xff, 0xfe])}, /not UTF-8/],
    ['that is no profile', {profile: Buffer.from('[]')}, /expected a JSON object/],
    [
      'of files of another image',
      {profile: Buffer.from(JSON.stringify({path: 'a', manifestDigest: digestOf('b')}))},
      /it names files of another image/,
    ],
  ])('an artifact %s is refused', async (_, damage, message) => {
    const at = await scene(start)
    const {repository, image} = at
    const {content} = repository
    const change: {
      subject?: Digest | undefined
      artifactType?: string
      layers?: number
      profile?: Buffer
    } = damage
    const profile = await writeBlob(content, change.profile ?? Buffer.from('{"path":"a"}'), PROFILE_LAYER)
    const manifest = {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      artifactType: change.artifactType ?? PROFILE_ARTIFACT,
      config: await writeBlob(content, Buffer.from('{}'), OCI_EMPTY),
      layers: Array.from({length: change.layers ?? 1}, () => profile),
      subject: 'subject' in change ? change.subject && {...image, digest: change.subject} : image,
    }
    await refer(at, encodeJson(manifest))
    await expect(pullProfiles(repository, await manifestsOf(at))).rejects.toMatchObject({
      message: expect.stringMatching(message),
    })
  })

  it('the commands push, pull and convert by them', async () => {
    const {host, image} = await scene(start)
    await using user = await createUser()
    const directory = await temporaryDirectory()
    const [file, pulled] = [join(directory, 'profile'), join(directory, 'pulled')]
    await writeFile(file, `${JSON.stringify({path: 'b.txt', manifestDigest: image.digest, layerIndex: 1})}\n`)
    const run = (...words: string[]) => user.run(...words)
    const name = `${host}/team/app:1`
    const pushed = await run('profile', 'push', file, name)
    expect(pushed, pushed.stderr).toMatchObject({
      exitCode: 0,
      stdout: expect.stringMatching(/^sha256:\w{64}\n$/),
    })
    expect(await run('profile', 'pull', '-o', pulled, name)).toMatchObject({exitCode: 0})
    expect(await readFile(pulled, 'utf8')).toBe(await readFile(file, 'utf8'))
    const target = `oci:${join(directory, 'converted')}:1`
    for (const command of [['convert', '--estargz'], ['optimize']]) {
      const words = ['--oci', '--profile-from-registry', `docker://${name}`, target]
      const converted = await run('image', ...command, '--json', ...words)
      expect(converted, converted.stderr).toMatchObject({exitCode: 0})
      expect(converted.stdout).toMatch(/"prioritizedFiles": ?1/)
    }
    const nowhere = await run(
      'image',
      'convert',
      '--estargz',
      '--oci',
      '--profile-from-registry',
      target,
      target,
    )
    expect(nowhere.stderr).toMatch(/it has no name in a registry/)
  })
}

it('an artifact that says to be huge is refused before it is read', () => {
  const layer = {mediaType: PROFILE_LAYER, digest: digestOf('x'), size: 1 << 30}
  const subject = {mediaType: OCI_MANIFEST, digest: digestOf('image'), size: 1}
  const config = {mediaType: OCI_EMPTY, digest: digestOf('{}'), size: 2}
  const artifact = {artifactType: PROFILE_ARTIFACT, config, layers: [layer], subject}
  const bytes = encodeJson({schemaVersion: 2, mediaType: OCI_MANIFEST, ...artifact})
  expect(() => profileLayerOf(bytes, subject.digest, 'it')).toThrow(/exceed the limit of/)
})

describe('beside images in our registry', () => {
  exchange(startOurs)

  it('the registry lists them, and nobody writes a tag', async () => {
    const at = await scene(startOurs)
    await pushProfile(at.repository, await manifestsOf(at), [{path: 'a'}])
    expect(at.requests).toContain(`GET /v2/team/app/referrers/${at.image.digest}`)
    expect(at.requests.filter(request => request.includes(referrersTag(at.image.digest)))).toEqual([])
  })
})

describeWith(['docker-registry'], 'beside images in docker-registry', () => {
  exchange(startDocker)
})
