// The part of a Kubernetes API server that keychains use: secrets, listed in pages and watched, over real HTTP.

import {mkdtemp, rm, writeFile} from 'node:fs/promises'
import {createServer, type ServerResponse} from 'node:http'
import type {AddressInfo} from 'node:net'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {onTestFinished} from 'vitest'

export interface FakeCluster {
  /** Path of a kubeconfig for it. */
  readonly kubeconfig: string
  readonly directory: string
  readonly url: string
  /** Query and Authorization header of every request. */
  readonly requests: readonly {readonly query: URLSearchParams; readonly authorization: string | undefined}[]
  /** Adds, changes (or without auths deletes) a secret, and tells those who watch. */
  set(key: string, auths: Record<string, unknown> | undefined): void
  /** Sends watchers a line as it is. */
  say(line: string): void
  /** Ends every watch. */
  endWatches(): void
  /** The next requests get this status. */
  fail(status: number, times: number): void
  /** Resolves when somebody watches. */
  watched(): Promise<void>
}

const PAGE = 2

/** Starts a cluster for the running test. */
export async function startCluster(): Promise<FakeCluster> {
  const directory = await mkdtemp(join(tmpdir(), 'ctr-remote-cluster-'))
  const secrets = new Map<string, object>()
  const watchers = new Set<ServerResponse>()
  const requests: {query: URLSearchParams; authorization: string | undefined}[] = []
  const waiting: (() => void)[] = []
  let version = 100
  let failures = {status: 0, times: 0}

  const server = createServer((request, response) => {
    const url = new URL(request.url!, 'http://cluster')
    requests.push({query: url.searchParams, authorization: request.headers.authorization})
    if (failures.times > 0) {
      failures.times--
      response.writeHead(failures.status).end('{}')
    } else if (url.pathname !== '/api/v1/secrets') {
      response.writeHead(404).end('{}')
    } else if (url.searchParams.has('watch')) {
      response.writeHead(200, {'content-type': 'application/json'}).flushHeaders()
      watchers.add(response)
      response.on('close', () => watchers.delete(response))
      for (const resolve of waiting.splice(0)) resolve()
    } else {
      const from = Number(url.searchParams.get('continue') ?? 0)
      const items = [...secrets.values()].slice(from, from + PAGE)
      const rest = from + PAGE < secrets.size ? {continue: String(from + PAGE)} : {}
      response.end(JSON.stringify({items, metadata: {resourceVersion: String(version), ...rest}}))
    }
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const kubeconfig = join(directory, 'config')
  await writeFile(kubeconfig, kubeconfigFor(url))
  onTestFinished(async () => {
    server.closeAllConnections()
    server.close()
    await rm(directory, {recursive: true, force: true})
  })
  const say = (line: string) => watchers.forEach(response => void response.write(`${line}\n`))
  return {
    kubeconfig,
    directory,
    url,
    requests,
    say,
    set(key, auths) {
      const [namespace, name] = key.split('/')
      const text = auths && Buffer.from(JSON.stringify({auths})).toString('base64')
      const data = text === undefined ? {} : {'.dockerconfigjson': text}
      const metadata = {namespace, name, resourceVersion: String(++version)}
      const type = auths === undefined ? 'DELETED' : secrets.has(key) ? 'MODIFIED' : 'ADDED'
      const object = {metadata, data}
      if (auths === undefined) secrets.delete(key)
      else secrets.set(key, object)
      say(JSON.stringify({type, object}))
    },
    endWatches: () => watchers.forEach(response => void response.end()),
    fail: (status, times) => {
      failures = {status, times}
    },
    watched: () =>
      watchers.size > 0 ? Promise.resolve() : new Promise(resolve => void waiting.push(() => resolve())),
  }
}

/** A kubeconfig with a context that counts and one that does not. */
export function kubeconfigFor(server: string, user = 'token: secret-token'): string {
  return `apiVersion: v1
kind: Config
current-context: here
contexts:
- name: other
  context: {cluster: elsewhere, user: nobody}
- name: here
  context: {cluster: mine, user: me}
clusters:
- name: mine
  cluster:
    server: ${server}
users:
- name: me
  user:
    ${user}
`
}
