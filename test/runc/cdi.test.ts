import {writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, it} from 'vitest'
import {resolveGpus} from '../../src/lib/runc/cdi.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const GENERATED = `---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
    hostPath: /dev/null
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-ctk
    - hook
    - update-ldcache
    hookName: createContainer
    path: /usr/bin/nvidia-ctk
  mounts:
  - containerPath: /usr/bin/nvidia-smi
    hostPath: /usr/bin/nvidia-smi
    options: [ro, nosuid, nodev, bind]
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      major: 195
      minor: 0
      type: c
  name: "0"
- containerEdits:
    deviceNodes:
    - {path: /dev/nvidia1, major: 195, minor: 1, type: c, fileMode: 438}
  name: 1
kind: nvidia.com/gpu
`

async function cdi(files: Readonly<Record<string, string>>): Promise<string[]> {
  const directory = await temporaryDirectory()
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text)
  return [directory]
}

describe('GPUs by CDI', () => {
  it('adds what the file and the device say, with device numbers from the host where they are missing', async () => {
    const edits = await resolveGpus(['0'], await cdi({'nvidia.yaml': GENERATED}))
    expect(edits.devices).toEqual([
      {path: '/dev/nvidiactl', type: 'c', major: 1, minor: 3},
      {path: '/dev/nvidia0', type: 'c', major: 195, minor: 0},
    ])
    expect(edits.env).toEqual(['NVIDIA_VISIBLE_DEVICES=void'])
    expect(edits.mounts).toEqual([
      {
        source: '/usr/bin/nvidia-smi',
        destination: '/usr/bin/nvidia-smi',
        type: 'bind',
        options: ['ro', 'nosuid', 'nodev', 'bind'],
      },
    ])
    expect(edits.hooks).toEqual([
      {
        stage: 'createContainer',
        hook: {path: '/usr/bin/nvidia-ctk', args: ['nvidia-ctk', 'hook', 'update-ldcache']},
      },
    ])
  })

  it('adds what the file says once for several devices', async () => {
    const {devices} = await resolveGpus('all', await cdi({'nvidia.yaml': GENERATED}))
    expect(devices.map(({path}) => path)).toEqual(['/dev/nvidiactl', '/dev/nvidia0', '/dev/nvidia1'])
  })

  it('takes the device named all when there is one', async () => {
    const text = JSON.stringify({
      kind: 'nvidia.com/gpu',
      devices: [{name: '0'}, {name: 'all', containerEdits: {env: ['ALL=1']}}],
    })
    expect((await resolveGpus('all', await cdi({'gpu.json': text}))).env).toEqual(['ALL=1'])
  })

  it('lets a later directory override an earlier one', async () => {
    const device = (value: string) =>
      JSON.stringify({
        kind: 'nvidia.com/gpu',
        devices: [{name: '0', containerEdits: {env: [`FROM=${value}`]}}],
      })
    const directories = [...(await cdi({'a.json': device('etc')})), ...(await cdi({'a.json': device('run')}))]
    expect((await resolveGpus(['0'], directories)).env).toEqual(['FROM=run'])
  })

  it('passes over files about other devices', async () => {
    const directories = await cdi({
      'nvidia.yaml': GENERATED,
      'other.yaml': 'kind: vendor.com/net\ndevices: 5\n',
    })
    expect((await resolveGpus(['1'], directories)).devices).toHaveLength(2)
  })

  const failures: ReadonlyArray<readonly [string, Record<string, string>, string, string]> = [
    ['no file at all', {}, 'not-found', 'nvidia.com/gpu=7'],
    ['no such device', {'nvidia.yaml': GENERATED}, 'not-found', 'nvidia-ctk cdi generate'],
    ['a file that is no YAML', {'x.yaml': 'a: [b'}, 'invalid-argument', 'x.yaml'],
    ['a file without devices', {'x.json': '{"kind":"nvidia.com/gpu"}'}, 'invalid-argument', 'devices'],
    [
      'a device that is missing on the host',
      {
        'x.json':
          '{"kind":"nvidia.com/gpu","devices":[{"name":"7","containerEdits":{"deviceNodes":[{"path":"/dev/none"}]}}]}',
      },
      'not-found',
      '/dev/none',
    ],
  ]
  for (const [name, files, code, message] of failures) {
    it(`says so for ${name}`, async () => {
      await expect(resolveGpus(['7'], await cdi(files))).rejects.toMatchObject({
        code,
        message: expect.stringContaining(message),
      })
    })
  }
})
