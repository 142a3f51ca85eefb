// The user's terminal and signals, while a task has them.

import {spawnSync} from 'node:child_process'
import {constants} from 'node:os'
import type {Task} from '../containerd/container.ts'
import {consumeInterrupts} from './interrupts.ts'

/** Signals that a task gets instead of us, besides those that interrupt. */
const FORWARDED = ['SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGCONT', 'SIGALRM'] as const

/** A task that has ignored so many requests to end is killed by the next. */
const PATIENCE = 3

/** Sends signals on to the task until disposed. The fourth request to end (Ctrl-C) kills it, whatever it catches. */
export function forwardSignals(task: Task): Disposable {
  let requests = 0
  const send = (name: NodeJS.Signals) => {
    // A task that cannot be reached has ended, or its end will say what is wrong.
    task.kill(constants.signals[name]).catch(() => {})
  }
  const forward = (name: NodeJS.Signals) => send(name)
  for (const name of FORWARDED) process.on(name, forward)
  const interrupts = consumeInterrupts(name => {
    requests += 1
    send(requests > PATIENCE ? 'SIGKILL' : name)
  })
  return {
    [Symbol.dispose]() {
      for (const name of FORWARDED) process.off(name, forward)
      interrupts[Symbol.dispose]()
    },
  }
}

/** Gives the task's terminal the size of our window, where it has one. */
export async function resizeTerminal(task: Task): Promise<void> {
  const {columns, rows} = process.stdout
  if (columns > 0 && rows > 0) await task.resize({columns, rows})
}

/** Gives the task our terminal: keys as they are pressed, and the window's size when it changes. */
export function attachTerminal(task: Task): Disposable {
  const {stdin, stdout} = process
  const resize = () => void resizeTerminal(task).catch(() => {})
  const restore = stdin.isTTY ? makeRaw() : () => {}
  process.once('exit', restore)
  stdout.on('resize', resize)
  return {
    [Symbol.dispose]() {
      stdout.off('resize', resize)
      process.off('exit', restore)
      restore()
    },
  }
}

/**
 * Makes our terminal pass everything on unchanged; what is returned undoes it. Node's own raw mode still turns line feeds
 * into two characters on output, which the task's terminal has done already, or does not want.
 */
function makeRaw(): () => void {
  const saved = stty('-g').trim()
  stty('raw', '-echo')
  return () => void stty(saved)
}

function stty(...args: readonly string[]): string {
  return spawnSync('stty', args, {stdio: ['inherit', 'pipe', 'ignore'], encoding: 'utf8'}).stdout ?? ''
}
