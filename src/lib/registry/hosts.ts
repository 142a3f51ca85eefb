// The hosts of a registry domain: from options, containerd's hosts.toml directories, and Podman's registries.conf.

import {readFile} from 'node:fs/promises'
import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {type Reference, registryHostOf} from '../oci/reference.ts'
import {ALL_CAPABILITIES, type HostSettings, schemeFor} from './endpoint.ts'
import {type HostEntry, readHostsDirectory} from './hosts-toml.ts'
import type {Timeouts} from './http.ts'
import {type RegistriesConfFiles, readRegistriesConf} from './registries-conf.ts'
import type {TlsSettings} from './trust.ts'

/** How registries are reached; the names are those of `ctr`'s flags. */
export interface HostOptions {
  /** Plain HTTP. Without it, hosts on the loopback interface get HTTP and all others HTTPS. */
  readonly plainHttp?: boolean | undefined
  /** Accept any certificate. */
  readonly skipVerify?: boolean | undefined
  /** Path of a PEM file: authorities to trust beside the system's. */
  readonly tlscacert?: string | undefined
  /** Paths of PEM files: client certificate and its key; both or none. */
  readonly tlscert?: string | undefined
  readonly tlskey?: string | undefined
  /** A directory in the format of containerd's `certs.d`. */
  readonly hostsDir?: string | undefined
  /** Podman's files, for the registries of which `hostsDir` says nothing. */
  readonly registriesConf?: RegistriesConfFiles | undefined
  /** Hosts to try before all others, for a registry domain. */
  readonly mirrorsOf?: ((domain: string) => readonly Mirror[]) | undefined
}

/** A host that stands in for a registry. */
export interface Mirror {
  /** `host[:port][/path]`, or a URL. */
  readonly address: string
  /** Plain HTTP; without it, hosts on the loopback interface get HTTP and all others HTTPS. */
  readonly plainHttp: boolean
  readonly headers: Readonly<Record<string, string>>
  /** Where they are not the session's. */
  readonly timeouts: Partial<Timeouts> | undefined
}

/** The hosts to try for a reference, in order; the origin is the last of them. */
export async function findHosts(
  reference: Reference,
  options: HostOptions,
  {signal}: CallOptions,
): Promise<readonly HostSettings[]> {
  signal?.throwIfAborted()
  const tls = await readTls(options)
  const configured = options.hostsDir
    ? await readHostsDirectory(options.hostsDir, reference.domain)
    : undefined
  const first = await Promise.all(
    (options.mirrorsOf?.(reference.domain) ?? []).map(mirror => mirrorHost(mirror, options, tls)),
  )
  if (!configured && options.registriesConf) {
    const entries = await readRegistriesConf(options.registriesConf, reference)
    return [...first, ...(await Promise.all(entries.map(entry => hostOf(entry, options, tls))))]
  }
  if (!configured) return [...first, originHost(reference, options, tls)]
  const mirrors = await Promise.all(configured.mirrors.map(entry => hostOf(entry, options, tls)))
  const origin = configured.server
    ? await hostOf(configured.server, options, tls)
    : originHost(reference, options, tls)
  return [...first, ...mirrors, origin]
}

function originHost(reference: Reference, options: HostOptions, tls: TlsSettings): HostSettings {
  const host = registryHostOf(reference)
  const scheme = schemeFor(host, {
    plainHttp: options.plainHttp === true,
    hasTlsSettings: tls.skipVerify || tls.ca.length > 0 || tls.clients.length > 0,
  })
  return {
    url: new URL(`${scheme}://${host}`),
    overridePath: false,
    capabilities: ALL_CAPABILITIES,
    headers: {},
    tls,
    plainHttpAsked: options.plainHttp === true,
  }
}

async function mirrorHost(mirror: Mirror, options: HostOptions, tls: TlsSettings): Promise<HostSettings> {
  const {address, plainHttp, headers, timeouts} = mirror
  const written = /^https?:\/\//i.test(address)
  const entry: HostEntry = {
    address: plainHttp && !written ? `http://${address}` : address,
    capabilities: ALL_CAPABILITIES,
    ca: [],
    clients: [],
    skipVerify: false,
    headers,
    overridePath: false,
    file: 'the configured mirrors',
  }
  return {...(await hostOf(entry, options, tls)), timeouts}
}

/** A configured host; what the options say about TLS holds for it too, beside what its own entry says. */
async function hostOf(entry: HostEntry, options: HostOptions, tls: TlsSettings): Promise<HostSettings> {
  const own: TlsSettings = {
    skipVerify: tls.skipVerify || entry.skipVerify,
    ca: [...tls.ca, ...(await Promise.all(entry.ca.map(readPem)))],
    clients: [
      ...tls.clients,
      ...(await Promise.all(
        entry.clients.map(async pair => ({cert: await readPem(pair.cert), key: await readPem(pair.key)})),
      )),
    ],
  }
  const {address} = entry
  const written = /^https?:\/\//i.test(address)
  const hasTlsSettings = own.skipVerify || own.ca.length > 0 || own.clients.length > 0
  const scheme = written
    ? ''
    : `${schemeFor(address.split('/')[0]!, {plainHttp: options.plainHttp === true, hasTlsSettings})}://`
  const url = URL.parse(`${scheme}${address}`)
  if (!url || url.search || url.username) {
    throw new CodedError('invalid-argument', `Cannot use host ${JSON.stringify(address)} of ${entry.file}`)
  }
  return {
    url,
    overridePath: entry.overridePath,
    repository: entry.repository,
    capabilities: entry.capabilities,
    headers: entry.headers,
    tls: own,
    plainHttpAsked: options.plainHttp === true || (written && url.protocol === 'http:'),
  }
}

async function readTls(options: HostOptions): Promise<TlsSettings> {
  const {tlscacert, tlscert, tlskey} = options
  if ((tlscert === undefined) !== (tlskey === undefined)) {
    throw new CodedError('invalid-argument', 'Cannot use a client certificate without its key: give both')
  }
  return {
    skipVerify: options.skipVerify === true,
    ca: tlscacert === undefined ? [] : [await readPem(tlscacert)],
    clients:
      tlscert === undefined || tlskey === undefined
        ? []
        : [{cert: await readPem(tlscert), key: await readPem(tlskey)}],
  }
}

async function readPem(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch(cause => {
    throw new CodedError('invalid-argument', `Cannot read certificate file ${JSON.stringify(path)}`, {cause})
  })
  if (text.includes('-----BEGIN ')) return text
  throw new CodedError('invalid-argument', `Cannot use ${JSON.stringify(path)}: it is no PEM file`)
}
