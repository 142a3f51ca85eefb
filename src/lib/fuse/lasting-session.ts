// A session that is opened anew when it is lost: aborted through /sys/fs/fuse, unmounted by somebody, or without threads.

import {stat, statfs} from 'node:fs/promises'
import {describeError} from '../errors/coded-error.ts'
import {openSession, type Session, type SessionOptions} from './fuse-session.ts'
import type {TableEntry} from './request-handler.ts'

/** Told why a session was lost: whatever was mounted of it must be mounted again, its devices added again. */
export type LostListener = (reason: string) => void

type Options = Omit<SessionOptions, 'onGone'>

/** Opens the first session; see `openSession`. */
export async function openLastingSession<Entry extends TableEntry>(
  options: Options,
): Promise<LastingSession<Entry>> {
  const lasting = new LastingSession<Entry>(options)
  await lasting.open(options.onNew)
  return lasting
}

export class LastingSession<Entry extends TableEntry> {
  /** Counts the sessions: what was mounted of an earlier one is dead, or will be when this process ends. */
  generation = 0
  readonly #options: Options
  #current!: Session<Entry>
  /** `st_dev` of what the current session shows at the mount point. */
  #device = 0
  #isGone = false
  #isClosed = false
  #opening: Promise<void> | undefined
  /** Unmounted, but still read from by whoever had opened something before. */
  readonly #retired = new Set<Session<Entry>>()
  #onLost: LostListener = () => {}

  constructor(options: Options) {
    this.#options = options
  }

  /** To be called once, before anything else. */
  async open(onNew: Options['onNew']): Promise<void> {
    const generation = this.generation + 1
    const options = {...this.#options, onNew, onGone: () => this.#lose(generation)}
    this.#isGone = false
    this.#current = await openSession<Entry>(options)
    this.generation = generation
    this.#device = (await stat(options.mountpoint)).dev
  }

  /** True when the first session was an earlier process's, and is not lost. */
  get isAdopted(): boolean {
    return this.#current.connection.adopted
  }

  onLost(listener: LostListener): void {
    this.#onLost = listener
  }

  /** The session as it is, without a look at the mount point. */
  get session(): Session<Entry> {
    return this.#current
  }

  /** The session that serves the mount point, a new one where the last was lost. Throws what opening it throws. */
  async current(): Promise<Session<Entry>> {
    await this.#opening
    const reason = this.#isClosed ? undefined : await this.#whyLost()
    if (reason !== undefined) await this.#renew(reason)
    return this.#current
  }

  /** Ends the serving of a device, in sessions that were lost too. */
  async delete(name: string): Promise<void> {
    await Promise.all([this.#current, ...this.#retired].map(session => session.delete(name)))
  }

  async close(how: 'leave' | 'unmount'): Promise<void> {
    this.#isClosed = true
    await this.#opening?.catch(() => {})
    for (const session of this.#retired) await session.close('leave')
    await this.#current.close(how)
  }

  async #whyLost(): Promise<string | undefined> {
    const {mountpoint} = this.#options
    if (this.#isGone) {
      return `The FUSE connection of ${JSON.stringify(mountpoint)} was aborted, or unmounted by somebody else`
    }
    try {
      // Always asked of the server, so that an aborted connection shows at once.
      await statfs(mountpoint)
      if ((await stat(mountpoint)).dev === this.#device) return undefined
      return `${JSON.stringify(mountpoint)} was unmounted by somebody else`
    } catch (error) {
      return `Cannot use ${JSON.stringify(mountpoint)}: ${describeError(error)}`
    }
  }

  /** The threads have ended; noticed at once, so that the log tells and nothing waits for the next container. */
  #lose(generation: number): void {
    if (generation < this.generation || this.#isClosed) return
    this.#isGone = true
    this.current().catch(error =>
      this.#options.log.warn({error: describeError(error)}, 'cannot serve lazy layers anew'),
    )
  }

  #renew(reason: string): Promise<void> {
    this.#opening ??= this.#openAnew(reason).finally(() => {
      this.#opening = undefined
    })
    return this.#opening
  }

  async #openAnew(reason: string): Promise<void> {
    const {log, mountpoint} = this.#options
    const lost = this.#current
    const wasGone = this.#isGone
    log.warn({mountpoint, error: reason}, 'a file system of lazy layers was lost: serving it anew')
    if (wasGone) await lost.close('unmount')
    else this.#retired.add(lost)
    lost.connection.stopHolding()
    try {
      // What has outlived the last session is mounted again one by one: mounts that need no session must stay.
      await this.open(undefined)
    } catch (error) {
      this.#isGone = true
      throw error
    }
    this.#onLost(reason)
  }
}
