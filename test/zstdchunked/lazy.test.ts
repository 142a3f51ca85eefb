// zstd:chunked images mounted by our snapshotter: those for stargz-snapshotter, and those for Podman, which have the TOC's
// digest under a key of ours.

import {afterAll, beforeAll, expect, it} from 'vitest'
import {openStage, type Stage} from '../integration/lazy-stage.ts'
import {type DockerRegistry, startDockerRegistry} from '../support/docker-registry.ts'
import {describeWith} from '../support/requires.ts'

const DIALECTS = ['podman', 'stargz']

describeWith(['root', 'containerd', 'ctr', 'docker-registry'], 'our snapshotter', () => {
  let stage: Stage
  let registry: DockerRegistry
  const at = (tag: string) => `${registry.host}/app:${tag}`

  beforeAll(async () => {
    registry = await startDockerRegistry()
    stage = await openStage({backend: 'erofs'})
    for (const dialect of DIALECTS) {
      const {exitCode, stderr} = await stage.user.run(
        ...['image', 'convert', '-q', '--zstdchunked', '--oci', `--zstdchunked-dialect=${dialect}`],
        ...['localhost/app:plain', `docker://${at(dialect)}`],
      )
      expect(exitCode, stderr).toBe(0)
    }
  })
  afterAll(async () => {
    await stage?.[Symbol.asyncDispose]()
    await registry?.[Symbol.asyncDispose]()
  })

  it.each(DIALECTS)('mounts layers of the dialect %s, and shows what overlayfs shows', async dialect => {
    const namespace = `zstdchunked-${dialect}-${process.pid}`
    await stage.ctrRemote(namespace, 'image', 'rpull', at(dialect))
    const content = await stage.ctr(namespace, 'content', 'ls')
    expect(content.trim().split('\n')).toHaveLength(3)
    const lazy = await stage.tree(namespace, 'stargz', at(dialect))
    await stage.ctrRemote(namespace, 'image', 'pull', stage.plain)
    expect(lazy).toEqual(await stage.tree(namespace, 'overlayfs', stage.plain))
  })
})
