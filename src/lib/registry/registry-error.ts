// Errors of registries, in our codes and with advice: from response statuses and from failed connections.

import {CodedError, type ErrorCode, messageOf} from '../errors/coded-error.ts'
import type {HttpResponse} from './http.ts'
import {ProxyFailure} from './proxy.ts'

/** Most of an error body that is read, bytes. The spec's JSON errors take a few hundred. */
const MAX_ERROR_BODY = 64 * 1024
/** Most of a registry's own words that is repeated in a message, characters. */
const MAX_QUOTED = 300

/** The error for a response that is not what was asked for; reads (and so ends) its body. */
export async function errorFromResponse(response: HttpResponse, action: string): Promise<CodedError> {
  const {codes, text} = await readErrorBody(response)
  const said = text ? `: the registry says ${JSON.stringify(text)}` : ''
  const hint = hintOf(response.status, text)
  return new CodedError(
    codeOfStatus(response.status, codes),
    `Cannot ${action} at ${response.url.host}${throughProxy(response.proxy)}: ${describeStatus(response.status)}${said}${hint}`,
  )
}

/** The error for a request that got no response. An abort is passed on as it is. */
export function errorFromConnection(error: unknown, action: string, url: URL): unknown {
  if (error instanceof Error && error.name === 'AbortError') return error
  if (error instanceof CodedError) return error
  const failure = rootCause(error)
  const proxy = error instanceof ProxyFailure ? error.proxy : undefined
  const {code, advice} = adviceFor(failure, url)
  const message = `Cannot ${action} at ${url.host}${throughProxy(proxy)}: ${advice}`
  return new CodedError(code, message, {cause: error})
}

function throughProxy(proxy: string | undefined): string {
  return proxy === undefined ? '' : ` through the proxy ${JSON.stringify(proxy)}`
}

/** True for failures that another attempt may not have: not for certificates, names and protocol mix-ups. */
export function isRetryableConnectionError(error: unknown): boolean {
  const {code} = adviceFor(rootCause(error), new URL('https://unknown'))
  return code === 'unavailable' && rootCause(error).code !== 'ENOTFOUND'
}

/** True when nothing listens at an address. */
export function isRefusal(error: unknown): boolean {
  return rootCause(error).code === 'ECONNREFUSED'
}

/** A registry's text made safe to print: one line, no control characters, bounded. */
export function quotable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must go.
  const line = text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\s]+/g, ' ').trim()
  return line.length > MAX_QUOTED ? `${line.slice(0, MAX_QUOTED)}…` : line
}

/** At most `limit` bytes of a body; undefined when there are more. */
export async function readBounded(response: HttpResponse, limit: number): Promise<Uint8Array | undefined> {
  const parts: Uint8Array[] = []
  let size = 0
  for await (const part of response.body) {
    size += part.length
    if (size > limit) return undefined
    parts.push(part)
  }
  return Buffer.concat(parts, size)
}

/** The error body of distribution-spec "Error Codes": `{"errors":[{"code","message","detail"}]}`; or plain text. */
async function readErrorBody(response: HttpResponse): Promise<{codes: readonly string[]; text: string}> {
  const bytes = await readBounded(response, MAX_ERROR_BODY).catch(() => undefined)
  if (!bytes || bytes.length === 0) return {codes: [], text: ''}
  const text = Buffer.from(bytes).toString('utf8')
  try {
    const errors: unknown = (JSON.parse(text) as {errors?: unknown} | null)?.errors
    if (!Array.isArray(errors)) return {codes: [], text: quotable(text)}
    const entries = errors.slice(0, 4).map(entry => ({
      code: typeof entry?.code === 'string' ? entry.code : '',
      message: typeof entry?.message === 'string' ? entry.message : '',
    }))
    return {
      codes: entries.map(entry => entry.code),
      text: quotable(entries.map(({code, message}) => [code, message].filter(Boolean).join(' ')).join('; ')),
    }
  } catch {
    return {codes: [], text: text.trimStart().startsWith('<') ? '' : quotable(text)}
  }
}

function codeOfStatus(status: number, codes: readonly string[]): ErrorCode {
  if (codes.includes('DIGEST_INVALID') || codes.includes('SIZE_INVALID')) return 'corrupt'
  if (codes.includes('MANIFEST_BLOB_UNKNOWN')) return 'failed-precondition'
  if (status === 401 || status === 407) return 'unauthenticated'
  if (status === 403) return 'permission-denied'
  if (status === 404 || status === 410) return 'not-found'
  if (status === 405 || status === 415 || status === 501) return 'unsupported'
  if (status === 408 || status === 429 || status >= 500) return 'unavailable'
  if (status === 409 || status === 412 || status === 413 || status === 416) return 'failed-precondition'
  return status >= 400 ? 'invalid-argument' : 'unavailable'
}

function describeStatus(status: number): string {
  switch (status) {
    case 401:
      return 'the registry wants credentials, or refuses those it was given (HTTP 401)'
    case 403:
      return 'access is denied (HTTP 403)'
    case 404:
      return 'the registry does not have it (HTTP 404)'
    case 413:
      return 'it is larger than the registry accepts (HTTP 413)'
    case 429:
      return 'the registry limits requests (HTTP 429)'
    default:
      return `the registry answered HTTP ${status}`
  }
}

function hintOf(status: number, text: string): string {
  if (status === 400 && /HTTP request (was sent )?to (an )?HTTPS/i.test(text)) {
    return '; it speaks HTTPS: give --tlscacert FILE or --skip-verify instead of plain HTTP'
  }
  if (status === 401) return '; log in with "docker login", or give --user NAME:PASSWORD'
  if (status === 403) return '; check that the account may do this to the repository'
  if (status === 429) return '; wait, or log in for a higher limit'
  return ''
}

interface SystemFailure {
  readonly code: string | undefined
  readonly message: string
}

function rootCause(error: unknown): SystemFailure {
  let cause = error
  for (let depth = 0; depth < 5; depth++) {
    const inner: unknown =
      cause instanceof AggregateError && cause.errors.length > 0
        ? cause.errors[0]
        : cause instanceof Error
          ? cause.cause
          : undefined
    if (inner === undefined || inner === null) break
    cause = inner
  }
  const code = (cause as {code?: unknown} | null)?.code
  return {code: typeof code === 'string' ? code : undefined, message: messageOf(cause)}
}

/** What a connection failure means and what to do about it. */
function adviceFor(failure: SystemFailure, url: URL): {code: ErrorCode; advice: string} {
  const {code = '', message} = failure
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return {
      code: 'failed-precondition',
      advice: `its certificate is for another name (${quotable(message)}); --skip-verify accepts it`,
    }
  }
  if (/ALERT.*(CERTIFICATE_REQUIRED|BAD_CERTIFICATE|UNKNOWN_CA)/.test(code)) {
    return {
      code: 'failed-precondition',
      advice: 'it wants a client certificate that it knows; give --tlscert FILE and --tlskey FILE',
    }
  }
  if (/CERT|SELF_SIGNED|UNABLE_TO|ISSUER/.test(code) && !code.startsWith('UND_')) {
    return {
      code: 'failed-precondition',
      advice: `its certificate is not trusted (${quotable(message)}); give its authority with --tlscacert FILE, or --skip-verify`,
    }
  }
  if (code === 'ERR_SSL_WRONG_VERSION_NUMBER' || code === 'ERR_SSL_PACKET_LENGTH_TOO_LONG') {
    return {
      code: 'failed-precondition',
      advice: 'it does not speak TLS; use --plain-http if it serves plain HTTP',
    }
  }
  if (code.startsWith('HPE_')) {
    const hint = url.protocol === 'http:' ? '; if it speaks HTTPS, do without --plain-http' : ''
    return {code: 'unavailable', advice: `its answer is not HTTP (${quotable(message)})${hint}`}
  }
  if (code.startsWith('ERR_SSL_') || code === 'EPROTO') {
    return {code: 'failed-precondition', advice: `the TLS handshake failed (${quotable(message)})`}
  }
  switch (code) {
    case 'ENOTFOUND':
      return {code: 'unavailable', advice: 'its name is not known to DNS'}
    case 'ECONNREFUSED':
      return {code: 'unavailable', advice: 'nothing listens there (connection refused)'}
    case 'UND_ERR_CONNECT_TIMEOUT':
    case 'ETIMEDOUT':
      return {code: 'unavailable', advice: 'it cannot be reached (connection timed out)'}
    case 'UND_ERR_HEADERS_TIMEOUT':
      return {code: 'unavailable', advice: 'it did not answer in time'}
    case 'UND_ERR_BODY_TIMEOUT':
      return {code: 'unavailable', advice: 'it stopped sending'}
    case 'UND_ERR_ABORTED':
      // Undici's word for a proxy that answers CONNECT with anything but 200.
      return {code: 'failed-precondition', advice: `the proxy refuses to connect (${quotable(message)})`}
    case 'UND_ERR_INVALID_ARG':
      return {code: 'unauthenticated', advice: quotable(message)}
    case 'UND_ERR_HEADERS_OVERFLOW':
      return {code: 'corrupt', advice: 'its response headers are too large'}
    default:
      return {code: 'unavailable', advice: quotable(message) || 'the connection failed'}
  }
}
