// The way back from lazily pulled images: pods get the snapshotter that they had, what the kubelet takes for present is present
// in it, and everything that `node enable` wrote is as it was.

import {type ConnectOptions, connectContainerd} from '../containerd/client.ts'
import {containersOf, listNamespaces, removeSnapshots} from '../containerd/snapshotter-use.ts'
import {CodedError} from '../errors/coded-error.ts'
import {type ContainerdNames, findContainerd} from './containerd-service.ts'
import {Journal} from './journal.ts'
import {bringBackImages} from './move-images.ts'
import {
  afterwards,
  hasPlugin,
  lockNode,
  lookAtContainerd,
  type NodeChange,
  putEverythingBack,
  reachStage,
} from './node-change.ts'

export interface DisableOptions {
  readonly containerd: Omit<ContainerdNames, 'unit' | 'configPath'>
  readonly journalPath: string
  /** Also while containers use lazy snapshots: they lose the files that they have not read. */
  readonly force: boolean
  readonly onStep: (step: string) => void
  readonly signal: AbortSignal
}

/**
 * Does it; false where nothing was enabled. Run again, it goes on where it was interrupted. Throws `failed-precondition` while
 * containers use lazy snapshots, unless forced.
 */
export async function disableNode(options: DisableOptions): Promise<boolean> {
  const {journalPath, containerd, force, onStep, signal} = options
  await using _lock = await lockNode(journalPath)
  const journal = await Journal.open(journalPath)
  const {record} = journal
  if (!record) return false
  const {wish, configPath, containerdUnit: unit, files} = record
  const service = await findContainerd({...containerd, unit, configPath, signal})
  await journal.checkWritable(files.map(({path}) => path))
  const looked = await lookAtContainerd(journal, service, wish.snapshotter)
  const change = {...looked, journal, service, wish, onStep}
  if (!force) await refuseWhileUsed(change)
  await journal.update({phase: 'disabling'})
  try {
    if (await hasPlugin(change))
      await leaveSnapshotter(change, {force, before: record.snapshotterBefore, signal})
    await putEverythingBack(change)
  } catch (error) {
    throw afterwards(
      error,
      'Run "ctr-remote node disable" again to go on, or "ctr-remote node enable" to go back',
    )
  }
  return true
}

/** Pods do without it from here on, and so do the images that the kubelet takes for present. */
async function leaveSnapshotter(
  change: NodeChange,
  {force, before, signal}: {readonly force: boolean; readonly before: string; readonly signal: AbortSignal},
): Promise<void> {
  const {service, wish, base, onStep} = change
  await reachStage(change, 'plugin')
  // Pods that came meanwhile.
  if (!force) await refuseWhileUsed(change)
  if (base.settings.cri) {
    const forgotten = await bringBackImages({
      ...service,
      snapshotter: before,
      pauseImage: base.settings.cri.pauseImage,
      onImage: name => onStep(`brought ${name} into ${before}`),
      signal,
    })
    for (const name of forgotten) onStep(`removed ${name}, of which not all is here: it will be pulled again`)
  }
  for (const namespace of await namespacesOf(service)) {
    using client = await connectContainerd({...service, namespace})
    const left = await removeSnapshots(client, wish.snapshotter, {signal})
    if (left > 0)
      onStep(
        `left ${left} snapshots of "${wish.snapshotter}" in the namespace "${namespace}", which are in use`,
      )
  }
}

async function refuseWhileUsed({service, wish}: NodeChange): Promise<void> {
  const users: string[] = []
  for (const namespace of await namespacesOf(service)) {
    using client = await connectContainerd({...service, namespace})
    const ids = await containersOf(client, wish.snapshotter, service)
    users.push(...ids.map(id => `${id} (${namespace})`))
  }
  if (users.length === 0) return
  const [some, more] = [
    users.slice(0, 10).join(', '),
    users.length > 10 ? `, and ${users.length - 10} more` : '',
  ]
  throw new CodedError(
    'failed-precondition',
    `Cannot disable lazy pulling while containers use it: ${some}${more}; drain the node, or remove them, and try again (--force takes from them what they have not read)`,
  )
}

async function namespacesOf(options: ConnectOptions): Promise<string[]> {
  using client = await connectContainerd(options)
  return await listNamespaces(client, options)
}
