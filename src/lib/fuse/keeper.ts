// The keeper: a tiny process of its own (native/keeper.c, which describes the protocol) that holds descriptors by name
// while this one is killed, restarted or upgraded.

import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {mkdir} from 'node:fs/promises'
import {join} from 'node:path'
import {setTimeout as delay} from 'node:timers/promises'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {findNativeFile} from '../native/addon.ts'
import {exchange} from '../native/system-calls.ts'

export interface Keeper {
  /**
   * Gives the keeper a copy of `fd` to hold under `name` (1–64 bytes), with a note of at most 1024 bytes, instead of what
   * it held there. Starts it when it does not run.
   */
  hold(name: string, fd: number, note: string): Promise<void>
  /** A copy of the descriptor held under `name`, the caller's to close; the keeper goes on holding it. */
  take(name: string): Promise<{readonly fd: number; readonly note: string} | undefined>
  /** Closes the keeper's copy. A keeper that holds nothing more ends. */
  drop(name: string): Promise<void>
}

export interface KeeperOptions {
  /** The keeper's own directory, an absolute path; made when it is not there. It survives restarts, but need not reboots. */
  readonly directory: string
}

/** One that ends makes room for the next within moments. */
const MAX_STARTS = 100
const START_INTERVAL_MS = 20

/** Throws `unsupported` when the helper is not built. */
export async function openKeeper({directory}: KeeperOptions): Promise<Keeper> {
  const program = findNativeFile('keeper')
  if (program === undefined) {
    throw new CodedError(
      'unsupported',
      'Cannot keep mounts over a restart: the helper is not built; run "make -C native"',
    )
  }
  await mkdir(directory, {recursive: true, mode: 0o700})
  const socket = join(directory, 'keeper.sock')

  return {
    hold: async (name, fd, note) => {
      const message = Buffer.from(`H${name}\0${note}`)
      for (let starts = 0; ; starts++) {
        const reply = await ask(socket, message, fd)
        if (reply) return expectDone(reply.bytes, `hold "${name}"`)
        if (starts === MAX_STARTS) throw new CodedError('internal', `Cannot reach the keeper in ${directory}`)
        // Another may be on its way in or out: its lock is there, and its socket not yet, or no longer.
        if ((await startKeeper(program, directory)) === 'busy') await delay(START_INTERVAL_MS)
      }
    },
    take: async name => {
      const reply = await ask(socket, Buffer.from(`T${name}`))
      if (!reply || reply.bytes[0] === NOTHING) return undefined
      expectDone(reply.bytes, `take "${name}"`)
      if (reply.fd === undefined) throw new CodedError('internal', 'The keeper gave no descriptor')
      return {fd: reply.fd, note: reply.bytes.toString('utf8', 1)}
    },
    drop: async name => {
      const reply = await ask(socket, Buffer.from(`D${name}`))
      if (reply && reply.bytes[0] !== NOTHING) expectDone(reply.bytes, `drop "${name}"`)
    },
  }
}

const DONE = 'O'.charCodeAt(0)
const NOTHING = 'N'.charCodeAt(0)

/** The keeper's reply; undefined when none runs. One that runs and does not answer is an error. */
async function ask(
  socket: string,
  message: Uint8Array,
  fd?: number,
): Promise<Awaited<ReturnType<typeof exchange>> | undefined> {
  try {
    return await exchange(socket, message, fd)
  } catch (error) {
    // A socket that a killed keeper left refuses connections.
    if (hasCode(error, 'not-found', 'unavailable')) return undefined
    throw error
  }
}

function expectDone(reply: Buffer, what: string): void {
  if (reply[0] === DONE) return
  throw new CodedError('internal', `Cannot ${what} in the keeper: ${reply.toString('utf8', 1)}`)
}

/** Starts the helper in a session of its own; resolves when it listens, or when another one has the directory. */
async function startKeeper(program: string, directory: string): Promise<'listening' | 'busy'> {
  const child = spawn(program, [directory], {
    cwd: '/',
    env: {},
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  let problem = ''
  child.stdout.on('data', bytes => {
    said += bytes
  })
  child.stderr.on('data', bytes => {
    problem = `${problem}${bytes}`.slice(-1000)
  })
  // Once it listens it closes both; until then they tell what became of it.
  const ends = Promise.all([once(child.stdout, 'close'), once(child.stderr, 'close')])
  await Promise.race([ends, once(child, 'error').then(([cause]) => Promise.reject(cause))]).catch(cause => {
    throw new CodedError('internal', 'Cannot start the keeper', {cause})
  })
  child.unref()
  if (said === 'R') return 'listening'
  if (said === 'B') return 'busy'
  throw new CodedError('internal', `Cannot start the keeper: ${problem.trim() || 'it gave no reason'}`)
}
