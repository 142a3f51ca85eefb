// What an installation copies from examples/: containerd and systemd must understand it as it stands.

import {execFile} from 'node:child_process'
import {readFileSync} from 'node:fs'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {parse} from 'smol-toml'
import {describe, expect, it} from 'vitest'
import {DEFAULT_ADDRESS} from '../../src/daemons/snapshotter/flags.ts'
import {CONTAINERDS} from '../support/containerd.ts'
import {describeWith} from '../support/requires.ts'

const run = promisify(execFile)
const EXAMPLES = join(import.meta.dirname, '../../examples/snapshotter')
const FILES = ['containerd-1.toml', 'containerd-2.toml']

CONTAINERDS.forEach(({release, needs, programs}, index) => {
  describeWith(needs, `${release}, configured by the example,`, () => {
    it('has the snapshotter, and tells it which image a layer belongs to', async () => {
      const containerd = programs === undefined ? 'containerd' : join(programs, 'containerd')
      const file = join(EXAMPLES, FILES[index]!)
      const {stdout, stderr} = await run(containerd, ['--config', file, 'config', 'dump'])
      expect(stderr).not.toMatch(/level=(warn|error)|strict mode/)
      const config = JSON.stringify(parse(stdout))
      expect(config).toContain(`"address":"${DEFAULT_ADDRESS}"`)
      expect(config).toContain('"snapshotter":"stargz"')
      expect(config).toContain('"disable_snapshot_annotations":false')
    })
  })
})

describe('the systemd unit', () => {
  const unit = readFileSync(join(EXAMPLES, 'containerd-stargz-grpc.service'), 'utf8')

  it('leaves the process that holds the mounts alone when the daemon stops', () => {
    expect(unit).toMatch(/^KillMode=process$/m)
    expect(unit).toMatch(/^Type=notify$/m)
  })
})

describeWith(['systemd-analyze'], 'systemd', () => {
  it('finds nothing wrong with the unit, except that the program is not installed', async () => {
    const file = join(EXAMPLES, 'containerd-stargz-grpc.service')
    const {stderr} = await run('systemd-analyze', ['verify', file]).catch(error => error)
    const complaints = String(stderr)
      .split('\n')
      .filter(line => line.startsWith('containerd-stargz-grpc'))
    expect(complaints.filter(line => !line.includes('is not executable'))).toEqual([])
  })
})
