// Debian's docker-registry (CNCF Distribution) as a process of its own: the peer that clients are checked against.

import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {mkdtemp, rm, writeFile} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {freePort} from './free-port.ts'

export interface DockerRegistry extends AsyncDisposable {
  /** `127.0.0.1:port`. */
  readonly host: string
}

/** Starts docker-registry on a free port of 127.0.0.1; `htpasswd` is the text of a file of accounts (bcrypt), `notifications` whom it tells. */
export async function startDockerRegistry(
  options: {readonly htpasswd?: string; readonly notifications?: object} = {},
): Promise<DockerRegistry> {
  const directory = await mkdtemp(join(tmpdir(), 'ctr-remote-registry-'))
  const host = `127.0.0.1:${await freePort()}`
  const accounts = join(directory, 'htpasswd')
  if (options.htpasswd !== undefined) await writeFile(accounts, options.htpasswd)
  const config = {
    version: '0.1',
    log: {level: 'info', formatter: 'text', accesslog: {disabled: true}},
    storage: {filesystem: {rootdirectory: join(directory, 'data')}},
    http: {addr: host},
    ...(options.notifications === undefined ? {} : {notifications: options.notifications}),
    ...(options.htpasswd === undefined ? {} : {auth: {htpasswd: {realm: 'test', path: accounts}}}),
  }
  // JSON is YAML.
  await writeFile(join(directory, 'config.yml'), JSON.stringify(config))
  const child = spawn('docker-registry', ['serve', join(directory, 'config.yml')], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const ended = once(child, 'exit')
  let log = ''
  for await (const part of child.stderr.iterator({destroyOnReturn: false})) {
    log += part
    if (log.includes('listening on')) break
  }
  child.stderr.resume()
  if (child.exitCode !== null) throw new Error(`Cannot start docker-registry: ${log}`)
  return {
    host,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await ended
      await rm(directory, {recursive: true, force: true})
    },
  }
}
