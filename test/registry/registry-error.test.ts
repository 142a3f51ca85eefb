import {expect, test} from 'vitest'
import {errorFromConnection, isRetryableConnectionError} from '../../src/lib/registry/registry-error.ts'

/** A connection error with this system code, inside the wrappers that Node puts around it. */
function connectionError(code: string): Error {
  const inner = Object.assign(new Error(`the library's words for ${code}`), {code})
  return new TypeError('fetch failed', {cause: new AggregateError([inner])})
}

function check(code: string, expected: {code: string; advice: RegExp; retried: boolean}): void {
  const error = errorFromConnection(connectionError(code), 'read it', new URL('https://r.example:5000/v2/'))
  expect(error).toMatchObject({code: expected.code, message: expect.stringMatching(expected.advice)})
  expect(String(error)).toContain('Cannot read it at r.example:5000: ')
  expect(isRetryableConnectionError(connectionError(code))).toBe(expected.retried)
}

test.each([
  ['ENOTFOUND', 'unavailable', /not known to DNS/, false],
  ['EAI_AGAIN', 'unavailable', /EAI_AGAIN/, true],
  ['ECONNREFUSED', 'unavailable', /nothing listens there/, true],
  ['ECONNRESET', 'unavailable', /ECONNRESET/, true],
  ['UND_ERR_CONNECT_TIMEOUT', 'unavailable', /timed out/, true],
  ['UND_ERR_HEADERS_TIMEOUT', 'unavailable', /did not answer in time/, true],
  ['UND_ERR_HEADERS_OVERFLOW', 'corrupt', /too large/, false],
  ['HPE_INVALID_CONSTANT', 'unavailable', /is not HTTP/, true],
  ['DEPTH_ZERO_SELF_SIGNED_CERT', 'failed-precondition', /--tlscacert FILE/, false],
  ['SELF_SIGNED_CERT_IN_CHAIN', 'failed-precondition', /--tlscacert FILE/, false],
  ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'failed-precondition', /--tlscacert FILE/, false],
  ['CERT_HAS_EXPIRED', 'failed-precondition', /--skip-verify/, false],
  ['ERR_TLS_CERT_ALTNAME_INVALID', 'failed-precondition', /another name/, false],
  ['ERR_SSL_WRONG_VERSION_NUMBER', 'failed-precondition', /--plain-http/, false],
  ['ERR_SSL_PACKET_LENGTH_TOO_LONG', 'failed-precondition', /--plain-http/, false],
  [
    'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED',
    'failed-precondition',
    /--tlscert FILE and --tlskey FILE/,
    false,
  ],
  ['ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION', 'failed-precondition', /handshake failed/, false],
  ['SOMETHING_NEW', 'unavailable', /SOMETHING_NEW/, true],
])('%s is %s, with advice', (system, code, advice, retried) => check(system, {code, advice, retried}))

test('an abort is passed on as it is', () => {
  const abort = new DOMException('stop', 'AbortError')
  expect(errorFromConnection(abort, 'read it', new URL('https://r.example'))).toBe(abort)
})
