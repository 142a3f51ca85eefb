// In a user namespace, as with rootless containerd: no EROFS and no trusted attributes, but lazy layers all the same.

import {type ChildProcess, execFile, spawn} from 'node:child_process'
import {once} from 'node:events'
import {readFileSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {expect, it, onTestFinished} from 'vitest'
import {openGrpcChannel} from '../../src/lib/containerd/grpc.ts'
import {Snapshots} from '../../src/lib/containerd/proto/snapshots_pb.ts'
import {startFaultyRegistry} from '../support/faulty-registry.ts'
import {buildBlob} from '../support/layers.ts'
import {describeWith} from '../support/requires.ts'
import {tarOf} from '../support/sample-image.ts'
import {SNAPSHOTTER} from '../support/snapshotter.ts'
import {temporaryDirectory} from '../support/temporary.ts'

/** The daemon in namespaces of its own, of which it is the first process, so that everything in them ends with it. */
async function startRootless(directory: string): Promise<ChildProcess> {
  const address = join(directory, 'grpc.sock')
  const config = join(directory, 'config.toml')
  writeFileSync(config, '')
  const flags = ['--address', address, '--config', config, '--root', join(directory, 'root')]
  const unshare = ['--user', '--map-root-user', '--mount', '--pid', '--fork', '--mount-proc', '--kill-child']
  const daemon = spawn('unshare', [...unshare, SNAPSHOTTER, ...flags], {
    env: {PATH: process.env.PATH, HOME: directory, DOCKER_CONFIG: directory},
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  onTestFinished(async () => {
    const gone = once(daemon, 'exit')
    if (daemon.kill('SIGKILL')) await gone
  })
  let log = ''
  for await (const chunk of daemon.stderr!) {
    log += chunk
    if (log.includes('"serving snapshots"')) return daemon
  }
  throw new Error(`The daemon did not start: ${log}`)
}

describeWith(['root', 'unshare', 'nsenter'], 'the daemon in a user namespace', () => {
  it('mounts layers over FUSE, and says so to overlayfs', async () => {
    await using registry = await startFaultyRegistry()
    const layer = await buildBlob(tarOf({hello: 'hello\n'}))
    registry.addBlob('app', layer.bytes)
    const directory = await temporaryDirectory()
    const daemon = await startRootless(directory)
    const channel = openGrpcChannel(join(directory, 'grpc.sock'))
    onTestFinished(() => channel.close())
    const labels = {
      'containerd.io/snapshot.ref': 'layer',
      'containerd.io/snapshot/remote/stargz.reference': `${registry.host}/app:1`,
      'containerd.io/snapshot/remote/stargz.digest': layer.descriptor.digest,
      'containerd.io/snapshot/stargz/toc.digest': layer.tocDigest,
    }
    const prepared = channel.unary(Snapshots.method.prepare, {key: 'k', labels}, {headers: {}})
    await expect(prepared).rejects.toMatchObject({details: 'Target snapshot "layer" exists'})
    const request = {key: 'container', parent: 'layer'}
    const {mounts} = await channel.unary(Snapshots.method.prepare, request, {headers: {}})
    expect(mounts[0]!.options).toContain('userxattr')
    const [child] = readFileSync(`/proc/${daemon.pid}/task/${daemon.pid}/children`, 'utf8').split(' ')
    const lower = mounts[0]!.options.find(option => option.startsWith('lowerdir='))!.slice('lowerdir='.length)
    // What is mounted there is for the namespace's own processes alone.
    const enter = ['--target', child!, '--user', '--mount', '--preserve-credentials']
    const {stdout} = await promisify(execFile)('nsenter', [...enter, 'cat', join(lower, 'hello')])
    expect(stdout).toBe('hello\n')
  })
})
