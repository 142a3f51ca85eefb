// The memory of a conversion: that of a program as a user runs it, and at its highest.

import {mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {afterAll, beforeAll, describe, expect, it} from 'vitest'
import {createLayoutTarget} from '../../src/lib/layout/oci-directory.ts'
import {createUser, type User} from '../support/ctr-remote.ts'
import {writeSampleImage} from '../support/sample-image.ts'

const FILES = 200_000
/** Has a program say at its end what it took. Its resource usage would have that of this process in it, which it began as. */
const SAY_PEAK = `data:text/javascript,import {readFileSync} from 'node:fs';
process.on('exit', () => process.stderr.write(readFileSync('/proc/self/status', 'utf8')))`.replace(
  /\s/g,
  '%20',
)

describe('the memory of converting a layer of two hundred thousand files', () => {
  let directory: string
  let user: User
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'ctr-remote-memory-'))
    user = await createUser({NODE_OPTIONS: `--import=${SAY_PEAK}`})
    await using target = await createLayoutTarget({path: join(directory, 'source'), tag: 'latest'})
    const name = (index: number) => `usr/lib/python3/package${index >> 8}/module_${index}.py`
    const files = Array.from({length: FILES}, (_, index) => [name(index), `x = ${index}\n`])
    const {root} = await writeSampleImage(target.content, {layers: [Object.fromEntries(files)]})
    await target.publish(root)
  })
  afterAll(async () => {
    await user?.[Symbol.asyncDispose]()
    await rm(directory, {recursive: true, force: true})
  })

  it.each([
    ['eStargz', ['--estargz']],
    // With the tar-split, which has every header. With holes in the heaps of threads it was 380 MiB.
    ['zstd:chunked', ['--zstdchunked']],
  ])('to %s is less than it was with TOC and garbage in memory', async (_, flags) => {
    const places = ['source', 'converted'].map(name => `oci:${join(directory, name)}:latest`)
    const {exitCode, stderr} = await user.run('image', 'convert', '--quiet', '--oci', ...flags, ...places)
    expect(exitCode, stderr).toBe(0)
    expect(Number(/^VmHWM:\s+(\d+) kB$/m.exec(stderr)?.[1]) / 1024).toBeLessThan(320)
  })
})
