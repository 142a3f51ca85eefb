// Whether Docker's pulls and builds are lazy: it says nothing when they are not.

import {CodedError, hasCode} from '../errors/coded-error.ts'
import {runCommand} from '../io/run-command.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {isRecord} from '../oci/descriptor.ts'
import type {Finding} from './finding.ts'

export interface DockerOptions extends CallOptions {
  /** The snapshotter's name in containerd. */
  readonly snapshotter: string
  /** containerd's socket, which Docker must use too. */
  readonly address?: string | undefined
  /** Docker's client. */
  readonly docker: string
}

/** Its client answers at once, or the daemon does not. */
const TIMEOUT_MS = 20_000
/** What Docker calls an image store that is containerd's. */
const CONTAINERD_STORE = 'io.containerd.snapshotter.v1'

/** Nothing where there is no Docker. */
export async function checkDocker(options: DockerOptions): Promise<Finding[]> {
  const {snapshotter, docker, signal} = options
  let info: Readonly<Record<string, unknown>>
  try {
    const asked = await runCommand(docker, ['info', '--format', '{{json .}}'], {
      signal,
      timeoutMs: TIMEOUT_MS,
    })
    info = parseInfo(asked.stdout, asked.stderr)
  } catch (error) {
    if (hasCode(error, 'failed-precondition')) return []
    if (!hasCode(error, 'unavailable')) throw error
    return [
      {
        about: 'docker',
        level: 'warning',
        message: error instanceof Error ? error.message : String(error),
        breaks: 'whether Docker is lazy cannot be seen',
        remedy: 'systemctl status docker',
      },
    ]
  }
  const {Driver: driver, DriverStatus: status} = info
  const type = Array.isArray(status)
    ? status.find(pair => Array.isArray(pair) && pair[0] === 'driver-type')?.[1]
    : undefined
  const breaks = 'docker pull and docker build fetch all of every image, and say nothing'
  const remedy = `write {"features": {"containerd-snapshotter": true}, "storage-driver": "${snapshotter}"} into /etc/docker/daemon.json, then systemctl restart docker`
  if (type !== CONTAINERD_STORE) {
    const message = `Docker keeps images in a store of its own (${JSON.stringify(driver)}), not in containerd`
    return [{about: 'docker', level: 'warning', message, breaks, remedy}]
  }
  if (driver !== snapshotter) {
    const message = `Docker's images are in the snapshotter ${JSON.stringify(driver)}, not in "${snapshotter}"`
    return [{about: 'docker', level: 'warning', message, breaks, remedy}]
  }
  const other = otherContainerd(info, options.address)
  if (other !== undefined) {
    return [
      {
        about: 'docker',
        level: 'warning',
        message: `Docker uses the containerd at "${other}", not that at "${options.address}"`,
        breaks: `what is said here of containerd is not of Docker's`,
        remedy: `ctr-remote -a ${other} node check`,
      },
    ]
  }
  return [{about: 'docker', level: 'ok', message: `Docker's images are in "${snapshotter}"`}]
}

/** Throws `unavailable` when Docker's daemon has not answered. */
function parseInfo(stdout: string, stderr: string): Readonly<Record<string, unknown>> {
  try {
    const info: unknown = JSON.parse(stdout)
    if (isRecord(info) && typeof info.Driver === 'string' && info.Driver !== '') return info
  } catch {
    // Said below.
  }
  const line = stderr.trim().split('\n').at(-1) ?? ''
  throw new CodedError('unavailable', `Docker's daemon does not answer: ${line.slice(0, 200)}`)
}

/** Docker 27 and newer say which containerd they use. */
function otherContainerd(
  {Containerd: containerd}: Readonly<Record<string, unknown>>,
  address: string | undefined,
) {
  const used = isRecord(containerd) ? containerd.Address : undefined
  if (address === undefined || typeof used !== 'string' || used === '') return undefined
  const plain = (path: string) => path.replace(/^unix:\/\//, '').replace(/^\/var\/run\//, '/run/')
  return plain(used) === plain(address) ? undefined : used
}
