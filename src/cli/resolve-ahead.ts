// Asks a registry what a name means before anything else is done: the answer takes a round trip or more, in which the
// rest of the program can be loaded.

import {setImmediate as turn} from 'node:timers/promises'
import type {CallOptions} from '../lib/oci/content-store.ts'
import type {ImageSource} from '../lib/oci/image-store.ts'

/** Turns of the event loop in which a request on this machine gets out: one connects, the next one writes. */
const TURNS = 2

/** `source`, which is being resolved already. Its `resolve` gives the answer; a failure is for whoever asks for it. */
export async function resolveAhead(source: ImageSource, options: CallOptions): Promise<ImageSource> {
  const root = source.resolve(options)
  root.catch(() => undefined)
  // Loading modules blocks the loop, and with it the request.
  for (let count = 0; count < TURNS; count += 1) await turn()
  return {
    name: source.name,
    content: source.content,
    resolve: () => root,
    [Symbol.asyncDispose]: source[Symbol.asyncDispose].bind(source),
  }
}
