// Which proxy a request goes through, by the rules of Go's programs and curl.

import {BlockList, isIP, isIPv4} from 'node:net'
import {CodedError} from '../errors/coded-error.ts'

/** Proxy URLs as in HTTP_PROXY, HTTPS_PROXY and NO_PROXY; entry points read those. */
export interface ProxySettings {
  readonly httpProxy?: string | undefined
  readonly httpsProxy?: string | undefined
  readonly noProxy?: string | undefined
}

/** A connection through a proxy failed; what failed is the cause. */
export class ProxyFailure extends Error {
  /** Without credentials. */
  readonly proxy: string

  constructor(proxy: string, cause: unknown) {
    super(`The connection through the proxy "${proxy}" failed`, {cause})
    this.proxy = proxy
  }
}

/** The proxy for a URL: that of its scheme, unless NO_PROXY or this machine is meant. */
export function proxyFor(url: URL, settings: ProxySettings | undefined): URL | undefined {
  const secure = url.protocol === 'https:'
  const text = secure ? settings?.httpsProxy : settings?.httpProxy
  if (!text || isLoopbackHost(url.hostname) || isExempt(url, settings?.noProxy ?? '')) return undefined
  const proxy = URL.parse(text.includes('://') ? text : `http://${text}`)
  if (proxy?.hostname) return proxy
  throw new CodedError(
    'invalid-argument',
    `Cannot use ${secure ? 'HTTPS_PROXY' : 'HTTP_PROXY'}: it is no URL such as http://proxy.example.com:3128`,
  )
}

/** A proxy as messages name it. */
export function describeProxy({protocol, host}: URL): string {
  return `${protocol}//${host}`
}

/** True for `localhost`, 127.0.0.0/8 and ::1. Names that DNS decides about are never loopback. */
export function isLoopbackHost(hostname: string): boolean {
  const name = withoutBrackets(hostname).toLowerCase()
  return name === 'localhost' || name === '::1' || /^127(?:\.\d{1,3}){3}$/.test(name)
}

/**
 * Whether NO_PROXY names a URL's host: `*`, `example.com` with all below it, `.example.com` or `*.example.com` for those
 * below it alone, addresses, and ranges of addresses (`10.0.0.0/8`); each but ranges also with a port. Names are not looked
 * up in DNS.
 */
export function isExempt(url: URL, noProxy: string): boolean {
  const host = withoutBrackets(url.hostname).toLowerCase().replace(/\.$/, '')
  const port = url.port || (url.protocol === 'https:' ? '443' : '80')
  const entries = noProxy.split(/[\s,]+/).filter(Boolean)
  return entries.some(entry => matches(entry.toLowerCase(), host, port))
}

function matches(entry: string, host: string, port: string): boolean {
  if (entry === '*') return true
  const [, network, bits] = /^([0-9a-f.:]+)\/(\d{1,3})$/.exec(entry) ?? []
  if (network !== undefined) return isInRange(host, network, Number(bits))
  // An IPv6 address has colons itself; with a port it stands in brackets.
  const [, name = entry, ownPort] = isIP(entry) ? [] : (/^(.*?)(?::(\d{1,5}))?$/.exec(entry) ?? [])
  if (ownPort !== undefined && ownPort !== port) return false
  const wanted = withoutBrackets(name)
    .replace(/^\*(?=\.)/, '')
    .replace(/\.$/, '')
  if (isIP(wanted) || isIP(host))
    return isIP(wanted) !== 0 && isInRange(host, wanted, isIPv4(wanted) ? 32 : 128)
  return wanted.startsWith('.') ? host.endsWith(wanted) : host === wanted || host.endsWith(`.${wanted}`)
}

function isInRange(host: string, network: string, bits: number): boolean {
  const family = isIP(network)
  if (family === 0 || isIP(host) !== family || bits > (family === 4 ? 32 : 128)) return false
  const name = family === 4 ? 'ipv4' : 'ipv6'
  const range = new BlockList()
  range.addSubnet(network, bits, name)
  return range.check(host, name)
}

function withoutBrackets(hostname: string): string {
  return hostname.replace(/^\[|\]$/g, '')
}
