// `containerd-stargz-grpc config` and `stargz-store config`.

import {spawnSync} from 'node:child_process'
import {writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {parse} from 'smol-toml'
import {describe, expect, it} from 'vitest'
import {temporaryDirectory} from '../support/temporary.ts'

const SOURCES = join(import.meta.dirname, '../../src/daemons')

function runConfig(daemon: 'snapshotter' | 'layer-store', ...argv: string[]) {
  const program = [join(SOURCES, daemon, 'start.ts'), 'config', ...argv]
  const {status, stdout, stderr} = spawnSync(process.execPath, program, {encoding: 'utf8'})
  return {status, stdout, stderr}
}

async function fileWith(text: string): Promise<string> {
  const path = join(await temporaryDirectory(), 'config.toml')
  writeFileSync(path, text)
  return path
}

describe.each(['snapshotter', 'layer-store'] as const)('the configuration of the %s', daemon => {
  it('by default can be used as it is printed', async () => {
    const {status, stdout} = runConfig(daemon, 'default')
    expect({status, table: parse(stdout)}).toMatchObject({
      status: 0,
      table: {blob: {fetching_timeout_sec: 300}},
    })
    const path = await fileWith(stdout)
    expect(runConfig(daemon, 'check', '--config', path)).toEqual({
      status: 0,
      stdout: `${path}: can be used\n`,
      stderr: '',
    })
    expect(runConfig(daemon, 'dump', '--config', path).stdout).toBe(stdout)
  })

  it('is dumped with what a file says', async () => {
    const path = await fileWith('[directory_cache]\nmax_size_mb = 7\n')
    const {status, stdout} = runConfig(daemon, 'dump', `--config=${path}`)
    expect({status, table: parse(stdout)}).toMatchObject({
      status: 0,
      table: {directory_cache: {max_size_mb: 7}, mount_backend: 'auto'},
    })
  })

  it('with a key that is unknown does not pass, nor does one with a wrong value', async () => {
    const unknown = await fileWith('[blob]\nchunksize = 1\n')
    expect(runConfig(daemon, 'check', '--config', unknown)).toEqual({
      status: 1,
      stdout: `${unknown}: "blob.chunksize" is no key that is known\n`,
      stderr: '',
    })
    const wrong = runConfig(daemon, 'check', '--config', await fileWith('debug = 1\n'))
    expect(wrong).toMatchObject({status: 1, stdout: ''})
    expect(wrong.stderr).toContain('"debug"')
  })

  it('may have keys without effect, and is told them', async () => {
    const path = await fileWith('[blob]\ncheck_always = true\n')
    const {status, stdout} = runConfig(daemon, 'check', '--config', path)
    expect({status, stdout}).toMatchObject({
      status: 0,
      stdout: expect.stringContaining('"blob.check_always" has no effect: '),
    })
  })

  it('is asked for in three ways', () => {
    expect(runConfig(daemon, 'show')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('say default, check or dump'),
    })
  })
})

it('a layer store verifies what it serves', async () => {
  const path = await fileWith('disable_verification = true\n')
  expect(runConfig('snapshotter', 'check', '--config', path).status).toBe(0)
  expect(runConfig('layer-store', 'check', '--config', path)).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('a layer store verifies what it serves'),
  })
})
