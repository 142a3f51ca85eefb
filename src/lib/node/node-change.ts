// What `node enable` and `node disable` have in common: one at a time, containerd's files by stages, and the way back.

import {mkdir, rename, rm, stat, writeFile} from 'node:fs/promises'
import {createServer} from 'node:net'
import {dirname} from 'node:path'
import {connectContainerd} from '../containerd/client.ts'
import {findSnapshotter} from '../containerd/snapshotters.ts'
import {CodedError, describeError, hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {controlUnit, reloadUnits, showUnit} from '../systemd/systemctl.ts'
import {
  type ConfigBase,
  dropInPath,
  needsImport,
  type PlannedFile,
  planContainerdConfig,
  type SnapshotterWish,
  type Stage,
  unwishedChanges,
  whyNotReached,
  withoutPlanned,
} from './containerd-config.ts'
import {brokenPlugins, type ContainerdService, restartContainerd} from './containerd-service.ts'
import {dumpContainerdConfig, settingsOf} from './containerd-settings.ts'
import {rawTomlValue} from './edit-toml.ts'
import type {Journal} from './journal.ts'
import {type FileState, missingDirectories, readFileState, removeDirectories} from './node-files.ts'
import {UNIT_NAME} from './unit-file.ts'

/** Where the record of a machine is. */
export const JOURNAL_PATH = '/var/lib/ctr-remote/node.json'

/** What is being changed, and by what. */
export interface NodeChange {
  readonly journal: Journal
  readonly service: ContainerdService
  readonly wish: SnapshotterWish
  /** What containerd made of its files when this began. */
  readonly dump: unknown
  /** containerd's configuration without us. */
  readonly base: ConfigBase
  /** The plugins that did not work when this began. */
  readonly broken: ReadonlySet<string>
  /** Told of each thing that has been done. */
  readonly onStep: (step: string) => void
}

/** Lets nobody else change this machine until it is disposed; the kernel lets go of what is killed. */
export async function lockNode(journalPath: string): Promise<AsyncDisposable> {
  const [outermost] = await missingDirectories(journalPath)
  const {dev} = await stat(dirname(outermost ?? journalPath))
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(`\0ctr-remote-node:${dev}:${journalPath}`, resolve)
  }).catch(cause => {
    throw new CodedError(
      'unavailable',
      'Cannot change this machine: another "ctr-remote node enable" or "disable" is at work',
      {cause},
    )
  })
  return {
    async [Symbol.asyncDispose]() {
      await new Promise(resolve => server.close(resolve))
    },
  }
}

/** Looks at containerd as it is, and at its configuration as it is without us. */
export async function lookAtContainerd(
  journal: Journal,
  service: ContainerdService,
  snapshotter: string,
): Promise<Pick<NodeChange, 'dump' | 'base' | 'broken'>> {
  const dump = await dumpContainerdConfig(service)
  const {configPath} = service
  const text = await textWithoutUs(journal, configPath)
  using client = await connectContainerd(service)
  return {
    dump,
    base: {settings: settingsOf(dump, snapshotter), configPath, text},
    broken: await brokenPlugins(client, service),
  }
}

/** The text of containerd's configuration as it would be without us, also where somebody has changed it since. */
export async function textWithoutUs(journal: Journal, path: string): Promise<string | undefined> {
  const now = (await readFileState(path))?.text
  const known = journal.find(path)
  if (!known || now === undefined || now === known.before?.text) return now
  if (known.written.includes(now)) return known.before?.text
  return withoutPlanned(now, known.before?.text ?? '', known.written.at(-1) ?? '')
}

/** Whether the containerd that runs has the plugin. */
export async function hasPlugin({service, wish}: NodeChange): Promise<boolean> {
  using client = await connectContainerd(service)
  try {
    const {address} = await findSnapshotter(client, wish.snapshotter, service)
    return address === wish.address
  } catch (error) {
    if (hasCode(error, 'failed-precondition')) return false
    throw error
  }
}

/**
 * Brings containerd to a stage: its files, then a restart where it has not read them yet. Throws `failed-precondition` where
 * containerd makes something else of the files, before it is restarted.
 */
export async function reachStage(change: NodeChange, stage: Stage): Promise<void> {
  const {journal, service, wish, base} = change
  const {configPath, text} = base
  const known = journal.find(configPath)
  if (known && text !== undefined && text !== known.before?.text) await journal.rebase(configPath, text)
  const need = needsImport(base)
  await putPlanned(change, planContainerdConfig(base, wish, stage, need === 'yes' || (await isNamed(change))))
  if (need === 'perhaps' && journal.record?.isRestartDue) {
    const {plugin} = settingsOf(await dumpContainerdConfig(service), wish.snapshotter)
    if (!plugin) await putPlanned(change, planContainerdConfig(base, wish, stage, true))
  }
  if (!journal.record?.isRestartDue) return
  const after = await dumpContainerdConfig(service)
  const problem = whyNotReached(settingsOf(after, wish.snapshotter), wish, stage)
  const unwished = unwishedChanges(change.dump, after, wish)
  if (problem !== undefined || unwished.length > 0) {
    const what = problem ?? `it would also change ${unwished.slice(0, 5).join(', ')}`
    throw new CodedError(
      'failed-precondition',
      `Cannot tell containerd of the snapshotter: it makes something else of its files than was written (${what}); write by hand what "ctr-remote node check" says`,
    )
  }
  await restart(change)
}

async function putPlanned({journal, onStep}: NodeChange, files: readonly PlannedFile[]): Promise<void> {
  for (const {path, text} of files) {
    if ((await readFileState(path))?.text === text) continue
    if (!journal.record?.isRestartDue) await journal.update({isRestartDue: true})
    await journal.put(path, text)
    onStep(`wrote ${path}`)
  }
}

/** Whether an earlier run had to have the configuration name our file. */
async function isNamed({journal, service: {configPath}}: NodeChange): Promise<boolean> {
  const now = await readFileState(configPath)
  if (!now || !journal.find(configPath)?.written.includes(now.text)) return false
  return rawTomlValue(now.text, ['imports'])?.includes(dropInPath(configPath)) ?? false
}

async function restart({journal, service, broken, onStep}: NodeChange): Promise<void> {
  await restartContainerd(service, broken)
  await journal.update({isRestartDue: false})
  onStep('restarted containerd')
}

/** Puts everything back as it was at first, byte for byte; what somebody has changed since is kept beside. */
export async function putEverythingBack(change: NodeChange): Promise<void> {
  const {journal, service, onStep} = change
  const {record} = journal
  if (!record) return
  const ofContainerd = [service.configPath, dropInPath(service.configPath)]
  for (const path of ofContainerd) await restoreFile(change, path)
  if (journal.record?.isRestartDue) await restart(change)
  await stopSnapshotter(change)
  for (const {path} of record.files) await restoreFile(change, path)
  await removeDirectories(record.directories)
  await reloadUnits(service)
  await journal.remove()
  onStep('put everything back')
}

/** Puts files back as they were when this began, on a machine that was enabled then. */
export async function putBackFiles(
  change: NodeChange,
  atStart: ReadonlyMap<string, FileState | undefined>,
): Promise<void> {
  const {journal, service} = change
  const ofContainerd = [service.configPath, dropInPath(service.configPath)]
  for (const [path, state] of atStart) {
    if (JSON.stringify(await readFileState(path)) === JSON.stringify(state)) continue
    if (ofContainerd.includes(path)) await journal.update({isRestartDue: true})
    await journal.putBack(path, state)
  }
  await reloadUnits(service)
  if (journal.record?.isRestartDue) await restart(change)
  await journal.update({phase: 'enabled'})
}

async function restoreFile({journal, service, onStep}: NodeChange, path: string): Promise<void> {
  const known = journal.find(path)
  const now = await readFileState(path)
  if (!known || !now) return
  const isOfContainerd = path === service.configPath || path === dropInPath(service.configPath)
  let state = known.before ?? undefined
  if (now.text !== state?.text && !known.written.includes(now.text)) {
    // Changed since by somebody.
    if (path === service.configPath && state)
      state = {...now, text: (await textWithoutUs(journal, path)) ?? ''}
    else {
      if (isOfContainerd) await journal.update({isRestartDue: true})
      await rename(path, `${path}.saved`)
      onStep(`kept ${path}, which has been changed, as ${path}.saved`)
    }
  }
  if (now.text === state?.text && now.mode === state.mode) return
  if (isOfContainerd && !journal.record?.isRestartDue) await journal.update({isRestartDue: true})
  if (await journal.putBack(path, state)) onStep(`${state ? 'put back' : 'removed'} ${path}`)
}

/** Ends the daemon, with its mounts, unless it was there before. */
async function stopSnapshotter({journal, service, onStep}: NodeChange): Promise<void> {
  const before = journal.record?.unitBefore
  const unit = await showUnit(UNIT_NAME, service)
  if (!before || !unit.isLoaded) return
  if (unit.isEnabled && !before.isEnabled) await controlUnit('disable', UNIT_NAME, service)
  if (!unit.isActive || before.isActive) return
  // SIGTERM would leave its mounts to the next one.
  const dropIn = `/run/systemd/system/${UNIT_NAME}.d/ctr-remote.conf`
  await mkdir(dirname(dropIn), {recursive: true})
  try {
    await writeFile(dropIn, '[Service]\nKillSignal=SIGINT\n')
    await reloadUnits(service)
    await controlUnit('stop', UNIT_NAME, service)
  } finally {
    await rm(dirname(dropIn), {recursive: true, force: true})
  }
  onStep(`stopped ${UNIT_NAME}`)
}

/** An error, with what became of the machine. */
export function afterwards(cause: unknown, outcome: string): CodedError {
  const code = cause instanceof CodedError ? cause.code : 'internal'
  return new CodedError(code, `${describeError(cause)}. ${outcome}`, {cause})
}

/** Options without the signal: what has been begun is put back, whoever presses Ctrl-C. */
export function unhurried<Options extends CallOptions>(options: Options): Omit<Options, 'signal'> {
  const {signal: _, ...rest} = options
  return rest
}
