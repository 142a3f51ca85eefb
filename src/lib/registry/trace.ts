// What is sent and received, for --http-dump, --http-trace and logs: with everything secret taken out.

import {describeError} from '../errors/coded-error.ts'
import type {HttpRequest, HttpResponse} from './http.ts'

/** One request and its outcome. Credentials and the secrets of signed URLs are replaced by `***`. */
export interface RequestTrace {
  readonly method: string
  readonly url: string
  readonly requestHeaders: Readonly<Record<string, string>>
  /** Absent when there was no response; then `error` says why. */
  readonly status?: number
  readonly responseHeaders?: Readonly<Record<string, string>>
  readonly error?: string
  /** Until the response's headers were there. */
  readonly durationMs: number
}

export type RequestListener = (trace: RequestTrace) => void

/** Query parameters of the distribution API; any other may be a signature, and is hidden. */
const PLAIN_PARAMETERS = new Set(['digest', 'mount', 'from', 'ns', 'n', 'last', 'scope', 'service'])
const SECRET_HEADERS = new Set(['authorization', 'proxy-authorization', 'cookie'])
/** Response headers worth telling; all others are left out. */
const TOLD_HEADERS = [
  'content-type',
  'content-length',
  'content-range',
  'docker-content-digest',
  'location',
  'range',
  'retry-after',
  'www-authenticate',
]

/** Sends, and tells the listener what came of it. */
export async function traceRequest(
  listener: RequestListener | undefined,
  request: HttpRequest,
  send: () => Promise<HttpResponse>,
): Promise<HttpResponse> {
  if (!listener) return send()
  const startedAt = performance.now()
  const sent = {
    method: request.method,
    url: redactUrl(request.url),
    requestHeaders: redactHeaders(request.headers),
  }
  try {
    const response = await send()
    listener({
      ...sent,
      status: response.status,
      responseHeaders: toldHeaders(response, request.url),
      durationMs: performance.now() - startedAt,
    })
    return response
  } catch (error) {
    listener({...sent, error: describeError(error), durationMs: performance.now() - startedAt})
    throw error
  }
}

/** A URL that may be shown. */
export function redactUrl(url: URL): string {
  const shown = new URL(url)
  shown.username = ''
  shown.password = ''
  for (const name of new Set(shown.searchParams.keys())) {
    if (!PLAIN_PARAMETERS.has(name)) shown.searchParams.set(name, '***')
  }
  return shown.href
}

/** Custom headers may hold keys of any name, so only those that this client sets itself are shown in full. */
function redactHeaders(headers: Readonly<Record<string, string>>): Record<string, string> {
  const plain = new Set([
    'accept',
    'accept-encoding',
    'user-agent',
    'range',
    'content-type',
    'content-length',
  ])
  plain.add('content-range')
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => {
      const key = name.toLowerCase()
      if (plain.has(key)) return [name, value]
      const scheme = SECRET_HEADERS.has(key) ? `${value.split(' ')[0]} ` : ''
      return [name, `${scheme}***`]
    }),
  )
}

function toldHeaders(response: HttpResponse, from: URL): Record<string, string> {
  const told: Record<string, string> = {}
  for (const name of TOLD_HEADERS) {
    const value = response.header(name)
    if (value === undefined) continue
    const location = name === 'location' ? URL.parse(value, from.href) : null
    told[name] = location ? redactUrl(location) : value
  }
  return told
}
