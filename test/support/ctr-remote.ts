// Runs the built `ctr-remote` as a user would: its own process, its own home.

import {type ChildProcess, spawn} from 'node:child_process'
import {mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join, resolve} from 'node:path'

export const CTR_REMOTE = resolve(import.meta.dirname, '../../bin/ctr-remote')

export interface Finished {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

/** A user with a home of their own, which disposing removes; everything goes to the local store there. */
export interface User extends AsyncDisposable {
  readonly home: string
  /** Starts the program; the caller waits for it. */
  start(...argv: readonly string[]): Running
  /** Runs the program to its end. */
  run(...argv: readonly string[]): Promise<Finished>
}

export interface Running {
  readonly child: ChildProcess
  readonly finished: Promise<Finished>
  /** Resolves with the first line that matches, from stdout or stderr; rejects when the program ends without it. */
  line(stream: 'stdout' | 'stderr', pattern: RegExp): Promise<string>
}

export async function createUser(env: Readonly<Record<string, string>> = {}): Promise<User> {
  const home = await mkdtemp(join(tmpdir(), 'ctr-remote-user-'))
  const environment = {
    PATH: process.env.PATH ?? '',
    HOME: home,
    CTR_REMOTE_STORE: 'local',
    // Nobody's docker login gets in the way.
    DOCKER_CONFIG: join(home, '.docker'),
    ...env,
  }
  const start = (...argv: readonly string[]) => startProgram(argv, home, environment)
  return {
    home,
    start,
    run: (...argv) => start(...argv).finished,
    [Symbol.asyncDispose]: () => rm(home, {recursive: true, force: true}),
  }
}

function startProgram(argv: readonly string[], cwd: string, env: NodeJS.ProcessEnv): Running {
  const child = spawn(CTR_REMOTE, argv, {cwd, env, stdio: ['ignore', 'pipe', 'pipe']})
  const output = {stdout: '', stderr: ''}
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream].setEncoding('utf8').on('data', (text: string) => {
      output[stream] += text
    })
  }
  const finished = new Promise<Finished>((done, fail) => {
    child.on('error', fail)
    child.on('close', (code, signal) => {
      if (code === null) fail(new Error(`ctr-remote died of ${signal}: ${output.stderr}`))
      else done({exitCode: code, ...output})
    })
  })
  finished.catch(() => {})
  return {
    child,
    finished,
    line: (stream, pattern) =>
      new Promise((found, fail) => {
        const look = () => {
          const line = output[stream]
            .split('\n')
            .slice(0, -1)
            .find(text => pattern.test(text))
          if (line !== undefined) found(line)
        }
        child[stream].on('data', look)
        look()
        finished.then(end => fail(new Error(`ctr-remote ended (${end.exitCode}): ${end.stderr}`)), fail)
      }),
  }
}
