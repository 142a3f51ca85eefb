// What was on a machine before `node enable`, on the disk before anything is changed: whatever is interrupted, this says how to go
// on, and how to go back.

import {dirname} from 'node:path'
import * as z from 'zod'
import {CodedError} from '../errors/coded-error.ts'
import {replaceFile} from '../io/staged-file.ts'
import {
  type ChangedFile,
  checkWritable,
  dropFile,
  type FileState,
  makeDirectories,
  missingDirectories,
  putFile,
  readFileState,
  removeDirectories,
} from './node-files.ts'

const fileState = z.strictObject({text: z.string(), mode: z.number(), uid: z.number(), gid: z.number()})
const record = z.strictObject({
  format: z.literal(1),
  phase: z.enum(['enabling', 'enabled', 'disabling']),
  wish: z.strictObject({
    snapshotter: z.string(),
    address: z.string(),
    root: z.string(),
    runtimeClass: z.string().optional(),
  }),
  /** Where containerd's configuration is, and which unit runs it. */
  configPath: z.string(),
  containerdUnit: z.string(),
  /** What pods used before. */
  snapshotterBefore: z.string(),
  /** How the snapshotter's unit was. */
  unitBefore: z.strictObject({isEnabled: z.boolean(), isActive: z.boolean()}),
  /** Whether containerd may not have read yet what is written. */
  isRestartDue: z.boolean(),
  files: z.array(
    z.strictObject({path: z.string(), before: fileState.nullable(), written: z.array(z.string())}),
  ),
  /** Directories that were made, the outermost first. */
  directories: z.array(z.string()),
})
export type NodeRecord = Readonly<z.infer<typeof record>>

/** How a new file is, unless one was there. */
const NEW_FILE = {mode: 0o644, uid: 0, gid: 0}

/** The record of one machine, and the files that it is about. */
export class Journal {
  readonly path: string
  #record: NodeRecord | undefined

  private constructor(path: string, found: NodeRecord | undefined) {
    this.path = path
    this.#record = found
  }

  /** Throws `corrupt` for a record that cannot be read, which is not guessed at. */
  static async open(path: string): Promise<Journal> {
    const file = await readFileState(path)
    if (!file) return new Journal(path, undefined)
    try {
      return new Journal(path, record.parse(JSON.parse(file.text)))
    } catch (cause) {
      throw new CodedError(
        'corrupt',
        `Cannot read "${path}", which says what this machine was like before "node enable"`,
        {cause},
      )
    }
  }

  /** Undefined where nothing has been changed. */
  get record(): NodeRecord | undefined {
    return this.#record
  }

  /** Writes the record; on the disk when it resolves. */
  async save(next: NodeRecord): Promise<void> {
    await makeDirectories(await missingDirectories(this.path))
    await replaceFile(this.path, `${JSON.stringify(next, null, 2)}\n`, {mode: 0o600})
    this.#record = next
  }

  /** Changes some of what is recorded. */
  async update(part: Partial<NodeRecord>): Promise<void> {
    await this.save({...this.#recorded(), ...part})
  }

  /** Nothing is changed any more. */
  async remove(): Promise<void> {
    await dropFile(this.path)
    await removeDirectories([dirname(this.path)])
    this.#record = undefined
  }

  /** What was written last to a file of ours, and what was there at first; undefined for one that was never written. */
  find(path: string): ChangedFile | undefined {
    return this.#record?.files.find(file => file.path === path)
  }

  /**
   * Puts a text in place, or nothing; what was there before is recorded first. False where it is there already. A file that is
   * somebody's keeps its mode and owner.
   */
  async put(path: string, text: string | undefined): Promise<boolean> {
    const now = await readFileState(path)
    if (now?.text === text) return false
    const {files, directories} = this.#recorded()
    const known = this.find(path) ?? {path, before: now ?? null, written: []}
    const older = known.written.filter(old => old !== text)
    const written = text === undefined ? older : [...older, text]
    const made = await missingDirectories(path)
    await this.update({
      files: [...files.filter(file => file.path !== path), {path, before: known.before, written}],
      directories: [...directories, ...made.filter(directory => !directories.includes(directory))],
    })
    await makeDirectories(made)
    if (text === undefined) await dropFile(path)
    else await putFile(path, {...(now ?? known.before ?? NEW_FILE), text})
    return true
  }

  /** Somebody has changed a file since: what was there at first would be this now. */
  async rebase(path: string, text: string): Promise<void> {
    const now = (await readFileState(path)) ?? NEW_FILE
    const files = this.#recorded().files.map(file =>
      file.path === path ? {...file, before: {...now, text}} : file,
    )
    await this.update({files})
  }

  /** As `put`, with mode and owner: what was there at a certain time. */
  async putBack(path: string, state: FileState | undefined): Promise<boolean> {
    const now = await readFileState(path)
    if (JSON.stringify(now) === JSON.stringify(state)) return false
    if (state === undefined) await dropFile(path)
    else {
      await makeDirectories(await missingDirectories(path))
      await putFile(path, state)
    }
    return true
  }

  /** Throws `permission-denied` where the record or one of the files could not be written. */
  async checkWritable(paths: readonly string[]): Promise<void> {
    for (const path of [this.path, ...paths]) await checkWritable(path)
  }

  #recorded(): NodeRecord {
    if (!this.#record) throw new CodedError('internal', 'There is no record to change')
    return this.#record
  }
}
