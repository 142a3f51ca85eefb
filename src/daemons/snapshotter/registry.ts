// The registry client as the configuration wants it: hosts, mirrors, time limits, and where credentials come from.

import {homedir} from 'node:os'
import {join} from 'node:path'
import {describeError} from '../../lib/errors/coded-error.ts'
import type {KubernetesKeychain} from '../../lib/kubernetes/kubernetes-keychain.ts'
import {createDockerKeychain} from '../../lib/registry/docker-config.ts'
import type {Timeouts} from '../../lib/registry/http.ts'
import {chainKeychains, type Keychain} from '../../lib/registry/keychain.ts'
import type {RegistryOptions} from '../../lib/registry/registry.ts'
import {packageVersion} from '../version.ts'
import type {MirrorConfig, SnapshotterConfig} from './config.ts'
import {type CriKeychain, createCriKeychain} from './cri-keychain.ts'
import type {Log} from './log.ts'

type Environment = Readonly<Record<string, string | undefined>>

/** The keychains that are switched on; disposed when the daemon ends. */
export interface DaemonKeychains extends AsyncDisposable {
  /** Docker's files, then the cluster's secrets, then what the kubelet sent, as in the reference. */
  readonly all: Keychain
  readonly cri: CriKeychain | undefined
}

export async function openKeychains(
  config: SnapshotterConfig,
  env: Environment,
  log: Log,
): Promise<DaemonKeychains> {
  const {kubeconfigKeychain, criKeychain} = config
  const docker = createDockerKeychain({env, uid: process.getuid?.()})
  const cluster = kubeconfigKeychain && (await openCluster(kubeconfigKeychain.path, env, log))
  const cri = criKeychain && createCriKeychain(criKeychain.imageServicePath)
  const keychains = [docker, cluster, cri].filter(keychain => keychain !== undefined)
  return {
    all: chainKeychains(keychains, error =>
      log.warn({error: describeError(error)}, 'failed to look for credentials'),
    ),
    cri,
    async [Symbol.asyncDispose]() {
      cri?.[Symbol.dispose]()
      await cluster?.[Symbol.asyncDispose]()
    },
  }
}

async function openCluster(path: string, env: Environment, log: Log): Promise<KubernetesKeychain> {
  const {openKubernetesKeychain} = await import('../../lib/kubernetes/kubernetes-keychain.ts')
  return openKubernetesKeychain({
    path: path || env.KUBECONFIG || join(env.HOME || homedir(), '.kube/config'),
    onFailure: reason => log.warn({error: reason}, 'no credentials from the cluster'),
  })
}

/** Options of `openRegistry` for everything that the daemon reads. */
export function registryOptions(
  config: SnapshotterConfig,
  keychain: Keychain,
  env: Environment,
): RegistryOptions {
  const {resolver, blob} = config
  return {
    keychain,
    hostsDir: resolver.hostsDir,
    mirrorsOf: domain => (resolver.mirrors.get(domain) ?? []).map(mirrorOf),
    timeouts: timeoutsOf(resolver.requestTimeoutMs),
    retry: blob.retry,
    proxy: {
      httpProxy: env.http_proxy || env.HTTP_PROXY,
      httpsProxy: env.https_proxy || env.HTTPS_PROXY,
      noProxy: env.no_proxy || env.NO_PROXY,
    },
    userAgent: `containerd-stargz-grpc/${packageVersion()}`,
  }
}

function mirrorOf({host, insecure, headers, requestTimeoutMs}: MirrorConfig) {
  const timeouts = requestTimeoutMs === undefined ? undefined : timeoutsOf(requestTimeoutMs)
  return {address: host, plainHttp: insecure, headers, timeouts}
}

/** Nothing may take longer: to connect, to begin an answer, to go on with it. */

/** A body that goes quiet is asked for again: waiting for it as long as for an answer would fail whole mounts. */
const MAX_BODY_IDLE_MS = 10_000

/** `ms` is 0 for no limits. */
function timeoutsOf(ms: number): Timeouts {
  return {connectMs: ms, headersMs: ms, bodyIdleMs: Math.min(ms, MAX_BODY_IDLE_MS)}
}
