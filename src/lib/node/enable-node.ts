// Turns a machine to lazily pulled images: the snapshotter as a service, containerd told of it, the kubelet's images brought
// into it, and only then pods switched to it. Whatever fails puts everything back.

import {createTwoFilesPatch, FILE_HEADERS_ONLY} from 'diff'
import {CodedError, describeError, hasCode} from '../errors/coded-error.ts'
import {listLazyLayers} from '../snapshotter-client/snapshotter-client.ts'
import {controlUnit, isSystemdHere, reloadUnits, showUnit, type Unit} from '../systemd/systemctl.ts'
import {checkKernel} from './check-machine.ts'
import {type PlannedFile, planContainerdConfig, type SnapshotterWish} from './containerd-config.ts'
import {type ContainerdNames, findContainerd} from './containerd-service.ts'
import {Journal} from './journal.ts'
import {KUBERNETES} from './missing-images.ts'
import {bringImages} from './move-images.ts'
import {
  afterwards,
  hasPlugin,
  lockNode,
  lookAtContainerd,
  type NodeChange,
  putBackFiles,
  putEverythingBack,
  reachStage,
  unhurried,
} from './node-change.ts'
import {type FileState, readFileState} from './node-files.ts'
import {UNIT_NAME, unitFile} from './unit-file.ts'

export interface EnableOptions {
  readonly wish: SnapshotterWish
  readonly containerd: ContainerdNames
  /** The path of containerd-stargz-grpc. */
  readonly daemonProgram: string
  /** Where the record of this machine is. */
  readonly journalPath: string
  /** Brings an image of the kubelet's into the snapshotter from its registry. */
  readonly pull: (name: string) => Promise<void>
  readonly onStep: (step: string) => void
  readonly signal: AbortSignal
}

/** What would be done. */
export interface EnablePlan {
  /** Differences of files, as patch(1) reads them. */
  readonly diff: string
  readonly steps: readonly string[]
}

/** Where the daemon listens and keeps things unless it is told otherwise. */
export const USUAL_SOCKET = '/run/containerd-stargz-grpc/containerd-stargz-grpc.sock'
export const USUAL_ROOT = '/var/lib/containerd-stargz-grpc'

const UNIT_PATH = `/etc/systemd/system/${UNIT_NAME}`
const CONFIG_PATH = '/etc/containerd-stargz-grpc/config.toml'
const CONFIG = `# The configuration of containerd-stargz-grpc. Everything has a default: "containerd-stargz-grpc config default" prints
# all keys, "containerd-stargz-grpc config check" reads this file, and docs/configuration.md says what each key does.
`

/** A change, with the files of the daemon that are to be ours. */
interface Preparation extends NodeChange {
  readonly unit: Unit
  readonly ownFiles: readonly {readonly path: string; readonly text: string}[]
}

/** Looks, and says what `enableNode` would do. Throws as it does before it changes anything. */
export async function planEnable(options: EnableOptions): Promise<EnablePlan> {
  const change = await prepare(options)
  const {base, wish, journal, ownFiles, service} = change
  const files: PlannedFile[] = [...ownFiles, ...planContainerdConfig(base, wish, 'pods')]
  await journal.checkWritable(files.map(({path}) => path))
  const diffs: string[] = []
  for (const {path, text} of files) {
    const now = (await readFileState(path))?.text
    if (now !== text) diffs.push(patchOf(path, now, text))
  }
  const steps = [
    `start ${UNIT_NAME}`,
    `restart ${service.unit} with the plugin "${wish.snapshotter}"`,
    ...(base.settings.cri
      ? [
          `bring the images of "${KUBERNETES}" into "${wish.snapshotter}"`,
          `restart ${service.unit} with it for ${wish.runtimeClass === undefined ? 'all pods' : `pods of the class "${wish.runtimeClass}"`}`,
        ]
      : []),
  ]
  return {diff: diffs.join(''), steps: diffs.length > 0 ? steps : []}
}

function patchOf(path: string, before = '', after = ''): string {
  const options = {headerOptions: FILE_HEADERS_ONLY}
  return createTwoFilesPatch(path, path, before, after, undefined, undefined, options)
}

/**
 * Does it. Run again, it does what is missing, also after it was killed. Throws `permission-denied`, `unsupported` and
 * `failed-precondition` before anything is changed, or when everything has been put back, and says which.
 */
export async function enableNode(options: EnableOptions): Promise<void> {
  const {journalPath, wish, signal} = options
  await using _lock = await lockNode(journalPath)
  const change = await prepare(options)
  const {journal, service, base, ownFiles, unit} = change
  const planned = planContainerdConfig(base, wish, 'pods')
  await journal.checkWritable([...ownFiles, ...planned].map(({path}) => path))
  const {record} = journal
  const paths = [...(record?.files ?? []), ...ownFiles, ...planned].map(({path}) => path)
  const atStart = new Map<string, FileState | undefined>()
  for (const path of paths) atStart.set(path, await readFileState(path))
  await journal.save({
    format: 1,
    configPath: service.configPath,
    containerdUnit: service.unit,
    snapshotterBefore: base.settings.cri?.snapshotter ?? 'overlayfs',
    unitBefore: {isEnabled: unit.isEnabled, isActive: unit.isActive},
    isRestartDue: false,
    files: [],
    directories: [],
    ...record,
    phase: 'enabling',
    wish,
  })
  try {
    await startSnapshotter(change)
    if (!(await hasPlugin(change))) await reachStage(change, 'plugin')
    if (base.settings.cri) {
      await bringImages({
        ...service,
        snapshotter: wish.snapshotter,
        pauseImage: base.settings.cri.pauseImage,
        pull: options.pull,
        onImage: name => change.onStep(`brought ${name}`),
        signal,
      })
    }
    signal.throwIfAborted()
    await reachStage(change, 'pods')
    await journal.update({phase: 'enabled'})
  } catch (error) {
    throw await goBack(error, change, record?.phase === 'enabled' ? atStart : undefined)
  }
}

/** Everything that can be refused before anything is changed. */
async function prepare(options: EnableOptions): Promise<Preparation> {
  const {wish, journalPath, signal, onStep} = options
  if (!isSystemdHere()) {
    throw new CodedError(
      'unsupported',
      'Cannot enable lazy pulling here: this machine was not started by systemd; docs/snapshotter.md says what to do by hand',
    )
  }
  if (process.getuid?.() !== 0) {
    throw new CodedError('permission-denied', 'Cannot change this machine: it takes root')
  }
  const journal = await Journal.open(journalPath)
  checkSameWish(journal, wish)
  const [problem] = (await checkKernel(wish.root)).filter(({level}) => level === 'problem')
  if (problem) {
    throw new CodedError(
      'failed-precondition',
      `Cannot enable lazy pulling here: ${problem.message}, so ${problem.breaks}; try "${problem.remedy}"`,
    )
  }
  const service = await findContainerd({...options.containerd, signal})
  const looked = await lookAtContainerd(journal, service, wish.snapshotter)
  const {plugin} = looked.base.settings
  if (plugin && plugin.address !== wish.address) {
    throw new CodedError(
      'failed-precondition',
      `Cannot take the name "${wish.snapshotter}": containerd has a proxy plugin of that name at "${plugin.address}"; choose another one with --snapshotter, or take it out of containerd's configuration`,
    )
  }
  await refuseStranger(wish.address, signal)
  const unit = await showUnit(UNIT_NAME, {signal})
  const ownFiles = await planOwnFiles(journal, unit, options)
  return {...looked, journal, service, wish, onStep, unit, ownFiles}
}

/** Another snapshotter, or another place of it, takes a `node disable` first: pods use the one that is there. */
function checkSameWish(journal: Journal, wish: SnapshotterWish): void {
  const old = journal.record?.wish
  if (!old) return
  const changed = (['snapshotter', 'address', 'root'] as const).filter(key => old[key] !== wish[key])
  if (changed.length === 0) return
  const was = changed.map(key => `${key} "${old[key]}"`).join(', ')
  throw new CodedError(
    'failed-precondition',
    `Cannot change what this machine was enabled with (${was}): "ctr-remote node disable" first`,
  )
}

/** What listens where the daemon would must be ours. */
async function refuseStranger(address: string, signal: AbortSignal): Promise<void> {
  try {
    await listLazyLayers({address, signal})
  } catch (error) {
    if (hasCode(error, 'unavailable')) return
    if (!hasCode(error, 'unsupported')) throw error
    throw new CodedError(
      'failed-precondition',
      `Cannot start containerd-stargz-grpc: another snapshotter listens at "${address}"; stop it, and remove what uses it, first`,
      {cause: error},
    )
  }
}

/** The unit and the configuration, unless somebody has his own, or has changed ours. */
async function planOwnFiles(
  journal: Journal,
  unit: Unit,
  {wish, daemonProgram}: EnableOptions,
): Promise<{path: string; text: string}[]> {
  const flags = [
    ...(wish.address === USUAL_SOCKET ? [] : ['--address', wish.address]),
    ...(wish.root === USUAL_ROOT ? [] : ['--root', wish.root]),
  ]
  const files = [{path: CONFIG_PATH, text: CONFIG}]
  // A package's is in another place.
  if (unit.path === undefined || unit.path === UNIT_PATH) {
    files.push({path: UNIT_PATH, text: unitFile({program: daemonProgram, flags})})
  }
  const ours = []
  for (const file of files) {
    const now = await readFileState(file.path)
    if (!now || journal.find(file.path)?.written.includes(now.text)) ours.push(file)
  }
  return ours
}

async function startSnapshotter({journal, ownFiles, service, wish, onStep}: Preparation): Promise<void> {
  let isNew = false
  for (const {path, text} of ownFiles) {
    if (!(await journal.put(path, text))) continue
    onStep(`wrote ${path}`)
    isNew ||= path === UNIT_PATH
  }
  if (isNew) await reloadUnits(service)
  const {isEnabled, isActive} = await showUnit(UNIT_NAME, service)
  if (!isEnabled) await controlUnit('enable', UNIT_NAME, service)
  if (isNew || !isActive) {
    await controlUnit(isActive ? 'restart' : 'start', UNIT_NAME, service)
    onStep(`started ${UNIT_NAME}`)
  }
  await listLazyLayers({address: wish.address, signal: service.signal})
}

/** The error to throw, once everything is as it was: at first, or as it was when this began. */
async function goBack(
  error: unknown,
  change: NodeChange,
  atStart: ReadonlyMap<string, FileState | undefined> | undefined,
): Promise<unknown> {
  const back = {...change, service: unhurried(change.service)}
  try {
    if (atStart) await putBackFiles(back, atStart)
    else await putEverythingBack(back)
  } catch (failure) {
    const outcome = `Not everything could be put back (${describeError(failure)}): "ctr-remote node disable" tries again`
    return afterwards(error, outcome)
  }
  const {unit} = change.service
  return afterwards(error, `Everything is as it was before, and ${unit} runs with its old configuration`)
}
