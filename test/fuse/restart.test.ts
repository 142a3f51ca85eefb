// Killing and restarting a daemon under readers: nobody gets a wrong byte or an error, and nothing stays behind.

import {type ChildProcess, spawn} from 'node:child_process'
import {once} from 'node:events'
import {closeSync, existsSync, writeFileSync} from 'node:fs'
import {stat} from 'node:fs/promises'
import {join} from 'node:path'
import {expect, it, onTestFinished, vi} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {openKeeper} from '../../src/lib/fuse/keeper.ts'
import {openDataFileSystem} from '../../src/lib/fuse-data/data-files.ts'
import {MNT_DETACH, UMOUNT_NOFOLLOW, unmount} from '../../src/lib/native/system-calls.ts'
import {createLazyFile, DAEMON_FILE, isMounted, listeningLog, noise} from '../fuse-data/lazy-file.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {hasEnded, keeperOf} from './keeper-process.ts'

const SIZE = 4 << 20
const RESTARTS = 12
/** Restarting so often takes its time on a busy machine. */
const PATIENCE_MS = 240_000

interface Daemon {
  readonly child: ChildProcess
  /** What it printed after `ready`. */
  readonly said: () => string
  readonly closed: Promise<unknown[]>
}

/** Starts a daemon on `directory`; resolves when it serves. */
async function startDaemon(directory: string, fetches: number): Promise<Daemon> {
  const child = spawn(
    process.execPath,
    [join(import.meta.dirname, 'daemon-process.ts'), directory, String(fetches)],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  onTestFinished(() => void child.kill('SIGKILL'))
  let said = ''
  child.stdout.on('data', bytes => {
    said += bytes
  })
  const closed = once(child, 'close')
  while (!said.includes('ready')) await Promise.race([once(child.stdout, 'data'), closed.then(died)])
  return {child, said: () => said.replace('ready\n', ''), closed}
}

function died(): never {
  throw new Error('The daemon died before it served')
}

/** A directory for a daemon; when the test ends nothing is mounted there, and with the keeper goes whoever waits. */
async function daemonDirectory(): Promise<string> {
  const directory = await temporaryDirectory()
  writeFileSync(join(directory, 'content'), noise(SIZE))
  onTestFinished(() => {
    const mountpoint = join(directory, 'mnt')
    if (isMounted(mountpoint)) unmount(mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW)
    const keeper = keeperOf(join(directory, 'keeper'))
    if (keeper !== undefined) process.kill(keeper, 'SIGKILL')
  })
  return directory
}

async function endDaemon(
  {child, closed}: Daemon,
  signal: 'SIGINT' | 'SIGTERM' | 'SIGKILL',
): Promise<unknown[]> {
  child.kill(signal)
  return closed
}

/** Reads the whole file again and again with dd and the given flags, until told to end; counts what was wrong. */
function startReader(path: string, flags: string) {
  const expected = digestOf(noise(SIZE)).slice('sha256:'.length)
  const script = `
    while ! [ -e "$1.end" ]; do
      sum=$(dd if="$2" iflag=${flags} bs=64k status=none | sha256sum) || exit 3
      [ "$sum" = "${expected}  -" ] || { echo "wrong: $sum"; exit 4; }
    done`
  return (end: string) => {
    const child = spawn('bash', ['-o', 'pipefail', '-c', script, 'reader', end, path], {
      stdio: ['ignore', 'inherit', 'inherit'],
    })
    onTestFinished(() => void child.kill('SIGKILL'))
    return once(child, 'close')
  }
}

describeWith(['root', 'dd', 'bash', 'sha256sum'], 'a restarted daemon', () => {
  it('that is killed again and again gives no reader a wrong byte or an error', {
    timeout: PATIENCE_MS,
  }, async () => {
    const directory = await daemonDirectory()
    const path = join(directory, 'mnt', DAEMON_FILE)
    let daemon = await startDaemon(directory, 20)
    const readers = ['direct', 'direct', 'nocache', 'fullblock'].map(flags =>
      startReader(path, flags)(join(directory, 'readers')),
    )
    for (let restart = 1; restart <= RESTARTS; restart++) {
      expect(await daemon.closed).toEqual([null, 'SIGKILL'])
      expect(daemon.said()).toBe('')
      daemon = await startDaemon(directory, restart < RESTARTS ? 5 + ((restart * 37) % 60) : 0)
    }
    writeFileSync(join(directory, 'readers.end'), '')
    for (const reader of readers) expect(await reader).toEqual([0, null])
    expect(await endDaemon(daemon, 'SIGINT')).toEqual([0, null])
    expect(isMounted(join(directory, 'mnt'))).toBe(false)
  })

  it('takes over what was left on purpose, also when nobody has asked in between', async () => {
    const directory = await daemonDirectory()
    const path = join(directory, 'mnt', DAEMON_FILE)
    for (let restart = 0; restart < 3; restart++) {
      const daemon = await startDaemon(directory, 0)
      const read = startReadOnce(path)
      expect(await read).toBe(digestOf(noise(SIZE)))
      expect(await endDaemon(daemon, 'SIGTERM')).toEqual([0, null])
      expect(isMounted(join(directory, 'mnt'))).toBe(true)
    }
  })

  it('takes over what was left on purpose also when the keeper had been killed before', async () => {
    const directory = await daemonDirectory()
    const daemon = await startDaemon(directory, 0)
    const keeper = keeperOf(join(directory, 'keeper'))!
    process.kill(keeper, 'SIGKILL')
    await hasEnded(keeper)
    expect(await endDaemon(daemon, 'SIGTERM')).toEqual([0, null])
    const read = startReadOnce(join(directory, 'mnt', DAEMON_FILE))
    const next = await startDaemon(directory, 0)
    expect(await read).toBe(digestOf(noise(SIZE)))
    await endDaemon(next, 'SIGINT')
  })

  it('takes no mount over that another version has left, and says so', async () => {
    const directory = await daemonDirectory()
    const mountpoint = join(directory, 'mnt')
    await endDaemon(await startDaemon(directory, 0), 'SIGTERM')
    const keeper = await openKeeper({directory: join(directory, 'keeper')})
    const {fd, note} = (await keeper.take('data'))!
    await keeper.hold('data', fd, JSON.stringify({...JSON.parse(note), format: 0}))
    closeSync(fd)
    const {log, said} = listeningLog()
    const files = await openDataFileSystem({mountpoint, keeper, log})
    onTestFinished(() => files.close('unmount'))
    expect(files.adopted).toBe(false)
    expect(said).toContain('warn the FUSE mount is one of another version')
    const file = createLazyFile(directory, noise(SIZE), DAEMON_FILE)
    await files.add(file)
    expect(await startReadOnce(join(mountpoint, DAEMON_FILE))).toBe(digestOf(file.content))
  })

  it('lets who came in between wait, and answers them', async () => {
    const directory = await daemonDirectory()
    await endDaemon(await startDaemon(directory, 0), 'SIGKILL')
    const read = startReadOnce(join(directory, 'mnt', DAEMON_FILE))
    const daemon = await startDaemon(directory, 0)
    expect(await read).toBe(digestOf(noise(SIZE)))
    await endDaemon(daemon, 'SIGINT')
  })

  it('keeps requests until the layers that they are about are served again', async () => {
    const directory = await daemonDirectory()
    const mountpoint = join(directory, 'mnt')
    await endDaemon(await startDaemon(directory, 0), 'SIGTERM')
    const keeper = await openKeeper({directory: join(directory, 'keeper')})
    const files = await openDataFileSystem({mountpoint, keeper, deadlineMs: 1, ...listeningLog()})
    onTestFinished(() => files.close('unmount'))
    expect(files.adopted).toBe(true)
    const read = startReadOnce(join(mountpoint, DAEMON_FILE))
    const other = stat(join(mountpoint, 'abc')).catch(error => error.code)
    const file = createLazyFile(directory, noise(SIZE), DAEMON_FILE)
    file.store(0, SIZE)
    await files.add(file)
    expect(await read).toBe(digestOf(file.content))
    expect(await Promise.race([other, 'still waiting'])).toBe('still waiting')
    files.resume()
    expect(await other).toBe('ENOENT')
  })

  it('that never comes back leaves a mount that can be detached, and readers that can be killed', async () => {
    const directory = await daemonDirectory()
    const mountpoint = join(directory, 'mnt')
    await endDaemon(await startDaemon(directory, 0), 'SIGKILL')
    const reader = spawn('cat', [join(mountpoint, DAEMON_FILE)], {stdio: 'ignore'})
    await once(reader, 'spawn')
    unmount(mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW)
    expect(isMounted(mountpoint)).toBe(false)
    reader.kill('SIGKILL')
    // It may have come too late to find the file.
    expect([
      [null, 'SIGKILL'],
      [1, null],
    ]).toContainEqual(await once(reader, 'close'))
    const daemon = await startDaemon(directory, 0)
    expect(await startReadOnce(join(mountpoint, DAEMON_FILE))).toBe(digestOf(noise(SIZE)))
    await endDaemon(daemon, 'SIGINT')
    expect(existsSync(join(mountpoint, DAEMON_FILE))).toBe(false)
  })

  it('whose keeper was killed as well mounts anew over what is dead', async () => {
    const directory = await daemonDirectory()
    await endDaemon(await startDaemon(directory, 0), 'SIGKILL')
    process.kill(keeperOf(join(directory, 'keeper'))!, 'SIGKILL')
    const daemon = await startDaemon(directory, 0)
    expect(await startReadOnce(join(directory, 'mnt', DAEMON_FILE))).toBe(digestOf(noise(SIZE)))
    await endDaemon(daemon, 'SIGINT')
    expect(isMounted(join(directory, 'mnt'))).toBe(false)
  })
})

/** The digest of a file, read by another process. */
async function startReadOnce(path: string): Promise<string> {
  const child = spawn('sha256sum', [path], {stdio: ['ignore', 'pipe', 'inherit']})
  onTestFinished(() => void child.kill('SIGKILL'))
  let said = ''
  child.stdout.on('data', bytes => {
    said += bytes
  })
  await once(child, 'close')
  return `sha256:${said.slice(0, 64)}`
}

describeWith(['root'], 'a mount whose keeper was killed', () => {
  it('has another one soon', async () => {
    vi.useFakeTimers({toFake: ['setInterval', 'clearInterval']})
    onTestFinished(() => void vi.useRealTimers())
    const directory = await temporaryDirectory()
    const keeper = await openKeeper({directory: join(directory, 'keeper')})
    const files = await openDataFileSystem({mountpoint: join(directory, 'mnt'), keeper, ...listeningLog()})
    onTestFinished(() => files.close('unmount'))
    const first = keeperOf(join(directory, 'keeper'))!
    process.kill(first, 'SIGKILL')
    await hasEnded(first)
    expect(await keeper.take('data')).toBeUndefined()
    vi.advanceTimersByTime(30_000)
    for (let held: Awaited<ReturnType<typeof keeper.take>>; held === undefined; ) {
      await new Promise(resolve => setImmediate(resolve))
      held = await keeper.take('data')
      if (held) closeSync(held.fd)
    }
  })
})
