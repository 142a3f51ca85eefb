// What a look at Docker says, by what its client prints.

import {chmod, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, it} from 'vitest'
import {checkDocker} from '../../src/lib/node/check-docker.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const ADDRESS = '/run/containerd/containerd.sock'

/** What is found where `docker info` prints this, or fails with it. */
async function findingsOf(info: object | string) {
  const docker = join(await temporaryDirectory(), 'docker')
  const script =
    typeof info === 'string' ? `echo '${info}' >&2; exit 1` : `cat <<'END'\n${JSON.stringify(info)}\nEND\n`
  await writeFile(docker, `#!/bin/sh\n${script}\n`)
  await chmod(docker, 0o755)
  return checkDocker({snapshotter: 'stargz', address: ADDRESS, docker})
}

const STORE = [['driver-type', 'io.containerd.snapshotter.v1']]

describe('Docker', () => {
  it('that is not there is not spoken of', async () => {
    expect(await checkDocker({snapshotter: 'stargz', address: ADDRESS, docker: '/nowhere/docker'})).toEqual(
      [],
    )
  })

  it('whose daemon does not answer is told of', async () => {
    expect(await findingsOf('Cannot connect to the Docker daemon')).toEqual([
      expect.objectContaining({
        about: 'docker',
        level: 'warning',
        message: "Docker's daemon does not answer: Cannot connect to the Docker daemon",
      }),
    ])
    // As a client prints it that has not reached one.
    expect((await findingsOf({Driver: '', ServerErrors: ['x']}))[0]).toMatchObject({level: 'warning'})
  })

  it('with a store of its own, or another snapshotter, is told what to write into daemon.json', async () => {
    for (const info of [
      {Driver: 'overlay2', DriverStatus: [['Backing Filesystem', 'extfs']]},
      {Driver: 'overlay2', DriverStatus: null},
      {Driver: 'overlayfs', DriverStatus: STORE},
    ]) {
      const [finding] = await findingsOf(info)
      expect(finding).toMatchObject({about: 'docker', level: 'warning'})
      expect(finding!.message).toContain(`"${info.Driver}"`)
      expect(finding!.remedy).toContain(
        '{"features": {"containerd-snapshotter": true}, "storage-driver": "stargz"}',
      )
    }
  })

  it('of another containerd is told of', async () => {
    const info = {Driver: 'stargz', DriverStatus: STORE, Containerd: {Address: '/run/docker/containerd.sock'}}
    expect((await findingsOf(info))[0]).toMatchObject({
      level: 'warning',
      remedy: 'ctr-remote -a /run/docker/containerd.sock node check',
    })
  })

  it('that is ready is well', async () => {
    const info = {Driver: 'stargz', DriverStatus: STORE}
    for (const Containerd of [undefined, {Address: ADDRESS}, {Address: `/var${ADDRESS}`}]) {
      expect(await findingsOf({...info, Containerd})).toEqual([
        {about: 'docker', level: 'ok', message: `Docker's images are in "stargz"`},
      ])
    }
  })
})
