// Whether a node is ready for lazy layers: its kernel, containerd and its configuration, the snapshotter behind it, the
// disk, and the images that are there already. It looks, and changes nothing.

import {type ConnectOptions, type ContainerdClient, connectContainerd} from '../containerd/client.ts'
import {findSnapshotter} from '../containerd/snapshotters.ts'
import {describeError, hasCode} from '../errors/coded-error.ts'
import {listLazyLayers} from '../snapshotter-client/snapshotter-client.ts'
import {checkDocker} from './check-docker.ts'
import {checkImages} from './check-images.ts'
import {checkDisk, checkKernel} from './check-machine.ts'
import {checkSettings} from './check-settings.ts'
import {type ContainerdSettings, readContainerdSettings} from './containerd-settings.ts'
import type {Finding} from './finding.ts'

export interface NodeOptions extends ConnectOptions {
  /** The snapshotter's name in containerd. */
  readonly snapshotter: string
  /** Its socket and root where containerd does not say. */
  readonly snapshotterAddress: string
  readonly snapshotterRoot: string
  /** containerd's program and its configuration file. */
  readonly program: string
  readonly configPath: string
  /** Docker's client. */
  readonly docker: string
}

export async function checkNode(options: NodeOptions): Promise<readonly Finding[]> {
  const {snapshotter, snapshotterAddress: address, snapshotterRoot: root, configPath} = options
  const findings: Finding[] = []
  const settings = await attempt(findings, readSettingsFailed, () =>
    readContainerdSettings(snapshotter, options),
  )
  findings.unshift(...(await checkKernel(settings?.plugin?.root ?? root)))
  if (settings) findings.push(...checkSettings(settings, {snapshotter, address, root, configPath}))
  findings.push(await checkDisk(settings?.plugin?.root ?? root))
  findings.push(await checkDaemon(settings?.plugin?.address ?? address, options))
  findings.push(...(await checkDocker(options)))
  using client = await attempt(findings, containerdFailed, () => connectContainerd(options))
  if (!client) return findings
  findings.push({about: 'containerd', level: 'ok', message: `containerd ${client.version} answers`})
  findings.push(...(await checkPlugin(client, settings, options)))
  return findings
}

/** Whether the daemon answers, and is ours. */
async function checkDaemon(address: string, {signal}: NodeOptions): Promise<Finding> {
  try {
    await listLazyLayers({address, signal})
    return {about: 'snapshotter', level: 'ok', message: `containerd-stargz-grpc answers at "${address}"`}
  } catch (error) {
    signal?.throwIfAborted()
    return {
      about: 'snapshotter',
      level: 'problem',
      message: `containerd-stargz-grpc does not answer at "${address}": ${describeError(error)}`,
      breaks: 'no image is pulled into it, and no container of it starts',
      remedy: 'systemctl enable --now containerd-stargz-grpc',
    }
  }
}

/** Whether the containerd that runs has the plugin; and what is in it, if so. */
async function checkPlugin(
  client: ContainerdClient,
  settings: ContainerdSettings | undefined,
  options: NodeOptions,
): Promise<Finding[]> {
  const {snapshotter, signal} = options
  try {
    await findSnapshotter(client, snapshotter, {signal})
  } catch (error) {
    if (!hasCode(error, 'failed-precondition')) throw error
    // Its configuration may be of later than its start; where it says nothing either, that has been found already.
    if (!settings?.plugin) return []
    return [
      {
        about: 'containerd',
        level: 'problem',
        message: `containerd runs without the plugin "${snapshotter}" that its configuration has`,
        breaks: 'nothing can use the snapshotter',
        remedy: 'systemctl restart containerd',
      },
    ]
  }
  const found: Finding = {
    about: 'containerd',
    level: 'ok',
    message: `containerd has the plugin "${snapshotter}"`,
  }
  if (!settings?.cri) return [found]
  const {cri} = settings
  const inUse = [cri.snapshotter, ...Object.values(cri.runtimes)].includes(snapshotter)
  return [found, ...(await checkImages({...options, pauseImage: cri.pauseImage, inUse}))]
}

/** What cannot be looked at is a finding, and the rest is looked at all the same. */
async function attempt<T>(
  findings: Finding[],
  describe: (message: string) => Finding,
  look: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await look()
  } catch (error) {
    if (!hasCode(error, 'failed-precondition', 'unavailable', 'permission-denied', 'unsupported')) throw error
    findings.push(describe(describeError(error)))
    return undefined
  }
}

const readSettingsFailed = (message: string): Finding => ({
  about: 'containerd',
  level: 'problem',
  message,
  breaks: 'containerd does not start with this configuration',
  remedy: 'containerd config dump',
})

const containerdFailed = (message: string): Finding => ({
  about: 'containerd',
  level: 'problem',
  message,
  breaks: 'no container starts',
  remedy: 'systemctl start containerd; journalctl --unit containerd',
})
