// Measures one command: wall time, processor time of everything it starts, memory of all of that together.

import {spawn} from 'node:child_process'
import {existsSync, readFileSync} from 'node:fs'

/** What one run took. Times in seconds, memory in bytes. */
export interface Measurement {
  readonly wallS: number
  /** User and system time of the command, its children, and what `alsoPids` used meanwhile. */
  readonly cpuS: number
  /** The largest resident memory seen, sampled every 20 ms, summed over the processes. */
  readonly peakRssBytes: number
  readonly stdout: string
}

export interface MeasureOptions {
  /** The processors the command may use, as `taskset --cpu-list` wants them. */
  readonly cpus: string
  readonly env?: NodeJS.ProcessEnv
  /** Processes that work for the command without being its children: a daemon. They get the same processors. */
  readonly alsoPids?: readonly number[]
  readonly signal?: AbortSignal
}

/** Runs a command to its end and measures it. Throws, with what it said, when it fails. */
export async function measure(command: readonly string[], options: MeasureOptions): Promise<Measurement> {
  const {cpus, env = process.env, alsoPids = [], signal} = options
  const before = sum(alsoPids.map(cpuSecondsOf))
  // bash's `time` counts the command and every child it waited for, to the millisecond; its report goes to fd 3.
  const script = 'TIMEFORMAT="%3R %3U %3S"; { time "$@" 2>&4; } 4>&2 2>&3'
  const child = spawn('bash', ['-c', script, 'bash', 'taskset', '--cpu-list', cpus, ...command], {
    env,
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    ...(signal && {signal}),
  })
  const [stdout, stderr, times] = [collect(child.stdout), collect(child.stderr), collect(child.stdio[3])]
  let peakRssBytes = 0
  const sampler = setInterval(() => {
    const pids = [...descendants(child.pid!), ...alsoPids]
    peakRssBytes = Math.max(peakRssBytes, sum(pids.map(rssOf)))
  }, 20)
  try {
    const code = await new Promise((resolve, reject) => child.once('error', reject).once('close', resolve))
    if (code !== 0) throw new Error(`"${command.join(' ')}" exited with ${code}:\n${stderr()}`)
  } finally {
    clearInterval(sampler)
  }
  const [wallS, userS, systemS] = times().trim().split(/\s+/).map(Number) as [number, number, number]
  const alsoS = sum(alsoPids.map(cpuSecondsOf)) - before
  return {wallS, cpuS: userS + systemS + alsoS, peakRssBytes, stdout: stdout()}
}

/** The middle value; of an even number, the upper one of the two in the middle. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

function collect(stream: unknown): () => string {
  let text = ''
  ;(stream as NodeJS.ReadableStream).on('data', chunk => {
    text += chunk
  })
  return () => text
}

/** A process and all that it has started, as far as they run. */
export function* descendants(pid: number): Generator<number> {
  yield pid
  for (const child of readProc(`/proc/${pid}/task/${pid}/children`).split(' ').filter(Boolean)) {
    yield* descendants(Number(child))
  }
}

/** Resident memory of a process, bytes; 0 when it is gone. */
export function rssOf(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readProc(`/proc/${pid}/status`))?.[1] ?? 0) * 1024
}

/** User and system time of a running process, and of its children that ended; proc(5) counts in hundredths. */
export function cpuSecondsOf(pid: number): number {
  const stat = readProc(`/proc/${pid}/stat`)
  // The second field is a name in parentheses, which may hold spaces. Fields 14 to 17 are the times.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return sum(fields.slice(11, 15).map(Number)) / 100
}

/** Empty when the process is gone. */
function readProc(path: string): string {
  try {
    return existsSync(path) ? readFileSync(path, 'utf8') : ''
  } catch {
    return ''
  }
}
