// GPUs by the Container Device Interface (CDI, SPEC.md of cncf-tags/container-device-interface): what the vendor's files
// in /etc/cdi and /var/run/cdi say that a container needs for a device.

import {readdir, readFile, stat} from 'node:fs/promises'
import {extname, join} from 'node:path'
import {parse as parseYaml} from 'yaml'
import {z} from 'zod'
import {CodedError, messageOf} from '../errors/coded-error.ts'
import type {DeviceEdits, SpecDevice} from './runtime-spec.ts'
import type {GpuSelection} from './workload.ts'

/** Later directories override earlier ones. */
export const CDI_DIRECTORIES: readonly string[] = ['/etc/cdi', '/var/run/cdi']

const GPU_KIND = 'nvidia.com/gpu'
/** The device by which vendors name all of theirs. */
const ALL = 'all'
/** Largest file read, bytes; that of a machine with eight GPUs has 100 KB. */
const MAX_FILE_SIZE = 4 * 1024 * 1024

const strings = z.array(z.string()).default([])

const editsSchema = z.object({
  env: strings,
  deviceNodes: z
    .array(
      z.object({
        path: z.string().startsWith('/'),
        hostPath: z.string().optional(),
        type: z.enum(['b', 'c', 'u', 'p']).optional(),
        major: z.number().int().nonnegative().optional(),
        minor: z.number().int().nonnegative().optional(),
        fileMode: z.number().int().optional(),
        uid: z.number().int().optional(),
        gid: z.number().int().optional(),
      }),
    )
    .default([]),
  mounts: z
    .array(
      z.object({
        hostPath: z.string(),
        containerPath: z.string().startsWith('/'),
        type: z.string().default('bind'),
        options: z.array(z.string()).default(['rbind', 'ro']),
      }),
    )
    .default([]),
  hooks: z
    .array(
      z.object({
        hookName: z.enum([
          'prestart',
          'createRuntime',
          'createContainer',
          'startContainer',
          'poststart',
          'poststop',
        ]),
        path: z.string().startsWith('/'),
        args: z.array(z.string()).optional(),
        env: z.array(z.string()).optional(),
        timeout: z.number().int().positive().optional(),
      }),
    )
    .default([]),
  additionalGids: z.array(z.number().int().positive()).default([]),
})

const documentSchema = z.object({
  kind: z.string(),
  devices: z.array(z.object({name: z.coerce.string(), containerEdits: editsSchema.prefault({})})),
  containerEdits: editsSchema.prefault({}),
})

type Edits = z.infer<typeof editsSchema>
type CdiDocument = z.infer<typeof documentSchema>

interface CdiDevice {
  readonly edits: Edits
  /** Its own edits come with those of its file, which count once. */
  readonly document: CdiDocument
}

/**
 * What the chosen GPUs add to a container. Throws `not-found` for a GPU that no file describes, `invalid-argument` for
 * a file of its kind that cannot be understood.
 */
export async function resolveGpus(
  selection: GpuSelection,
  directories: readonly string[] = CDI_DIRECTORIES,
): Promise<DeviceEdits> {
  const devices = await readDevices(directories)
  const names = selection === 'all' ? namesOfAll(devices) : selection
  const chosen = names.map(name => devices.get(name) ?? missing(name, directories))
  if (chosen.length === 0) missing(ALL, directories)
  const edits = [
    ...new Set(chosen.map(({document}) => document.containerEdits)),
    ...chosen.map(device => device.edits),
  ]
  return {
    env: edits.flatMap(({env}) => env),
    mounts: edits.flatMap(({mounts}) => mounts).map(toMount),
    devices: await Promise.all(edits.flatMap(({deviceNodes}) => deviceNodes).map(toDevice)),
    hooks: edits.flatMap(({hooks}) => hooks).map(({hookName, ...hook}) => ({stage: hookName, hook})),
    additionalGids: edits.flatMap(({additionalGids}) => additionalGids),
  }
}

function namesOfAll(devices: ReadonlyMap<string, CdiDevice>): readonly string[] {
  return devices.has(ALL) ? [ALL] : [...devices.keys()]
}

async function readDevices(directories: readonly string[]): Promise<Map<string, CdiDevice>> {
  const devices = new Map<string, CdiDevice>()
  for (const directory of directories) {
    const names = await readdir(directory).catch(() => [])
    for (const name of names.filter(file => ['.json', '.yaml', '.yml'].includes(extname(file))).sort()) {
      const document = await readDocument(join(directory, name))
      for (const device of document?.devices ?? []) {
        devices.set(device.name, {edits: device.containerEdits, document: document!})
      }
    }
  }
  return devices
}

/** Undefined for a file about other kinds of devices. JSON is YAML, so one parser reads both. */
async function readDocument(path: string): Promise<CdiDocument | undefined> {
  const invalid = (problem: string, cause?: unknown) =>
    new CodedError('invalid-argument', `Cannot use the CDI file ${JSON.stringify(path)}: ${problem}`, {cause})
  const text = await readFile(path, 'utf8')
  if (text.length > MAX_FILE_SIZE) throw invalid(`it is larger than ${MAX_FILE_SIZE} bytes`)
  let value: unknown
  try {
    value = parseYaml(text)
  } catch (cause) {
    throw invalid(messageOf(cause), cause)
  }
  if ((value as {kind?: unknown} | null)?.kind !== GPU_KIND) return undefined
  const result = documentSchema.safeParse(value)
  if (!result.success) throw invalid(z.prettifyError(result.error), result.error)
  return result.data
}

function toMount({
  hostPath,
  containerPath,
  type,
  options,
}: Edits['mounts'][number]): DeviceEdits['mounts'][number] {
  return {source: hostPath, destination: containerPath, type, options}
}

/** What a device node leaves out is the host's. */
async function toDevice(node: Edits['deviceNodes'][number]): Promise<SpecDevice> {
  const {path, hostPath = path, fileMode, uid, gid} = node
  const rest = {
    path,
    ...(fileMode === undefined ? {} : {fileMode}),
    ...(uid === undefined ? {} : {uid}),
    ...(gid === undefined ? {} : {gid}),
  }
  if (node.type !== undefined && node.major !== undefined && node.minor !== undefined) {
    return {...rest, type: node.type, major: node.major, minor: node.minor}
  }
  const status = await stat(hostPath).catch(cause => {
    throw new CodedError('not-found', `Cannot find the device ${JSON.stringify(hostPath)} of a GPU`, {cause})
  })
  // Linux's encoding of device numbers (makedev(3)).
  const major = Math.floor(status.rdev / 256) & 0xfff
  const minor = (status.rdev & 0xff) | (Math.floor(status.rdev / 4096) & 0xfff00)
  return {...rest, type: node.type ?? (status.isBlockDevice() ? 'b' : 'c'), major, minor}
}

function missing(name: string, directories: readonly string[]): never {
  throw new CodedError(
    'not-found',
    `Cannot find the GPU "${GPU_KIND}=${name}": no CDI file in ${directories.join(' or ')} describes it; make one with "nvidia-ctk cdi generate", or list the files with --prefetch-list`,
  )
}
