// How connections to registries are opened: as undici does, and without having its parser optimized.

import type {SecureContext} from 'node:tls'
import {setFlagsFromString} from 'node:v8'
import type {buildConnector} from 'undici'
import buildUndiciConnector from 'undici/lib/core/connect.js'
import {isUnknownAuthority, type Trust} from './trust.ts'

export interface ConnectSettings {
  readonly timeoutMs: number
  readonly skipVerify: boolean
  /** For TLS. */
  readonly trust: Trust | undefined
}

/** How much WebAssembly runs before V8 optimizes it, in its own measure: more than any process of ours runs; V8's default. */
const NEVER = 2 ** 31 - 1
const USUAL = 13_000_000
/** The release whose default that is, Node.js 24's. */
const KNOWN_V8 = /^13\.6\./

/** Whether the parser is still to be compiled, and in our way. */
let isParserToCome = KNOWN_V8.test(process.versions.v8)

type Connector = buildConnector.connector
type Callback = buildConnector.Callback

/** Opens connections; where the first authorities do not know a server's, all of them are asked from then on. */
export function connectorFor({timeoutMs, skipVerify, trust}: ConnectSettings): Connector {
  const connectorWith = (secureContext?: SecureContext) =>
    buildUndiciConnector({
      timeout: timeoutMs,
      ...(secureContext ? {rejectUnauthorized: !skipVerify, secureContext} : {}),
    })
  let connect = connectorWith(trust?.quick)
  let asksAll = trust === undefined
  return (options, callback) => {
    const compileParser = compilingParser(callback)
    connect(options, (...result) => {
      const [error] = result
      if (!trust || error === null || !isUnknownAuthority(error)) return compileParser(...result)
      if (!asksAll) connect = connectorWith(trust.all())
      asksAll = true
      connect(options, compileParser)
    })
  }
}

/**
 * Undici parses HTTP by a WebAssembly module, which it compiles on the first connection, in the callback. After a few
 * answers V8 would compile the largest function of it once more, which takes 35 ms of a processor and 40 MB of memory:
 * more than it can save, for bodies are not parsed. How soon is decided when the module is compiled.
 */
function compilingParser(callback: Callback): Callback {
  return (...result) => {
    if (!isParserToCome) return callback(...result)
    setFlagsFromString(`--wasm-tiering-budget=${NEVER}`)
    try {
      callback(...result)
    } finally {
      // As it was: code that is kept (cached-modules.ts) is for the flags that it was made with.
      setFlagsFromString(`--wasm-tiering-budget=${USUAL}`)
    }
    isParserToCome = result[0] !== null
  }
}
