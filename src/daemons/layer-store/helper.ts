// `stargz-store-helper [SOCKET]`: the program that registries.conf names as `additional-layer-store-auth-helper`. It passes
// the credentials that it reads on to the store.

import {describeError} from '../../lib/errors/coded-error.ts'
import {tellCredentials} from '../../lib/layer-store-client/layer-store-client.ts'
import {DEFAULT_ADDRESS} from './flags.ts'

try {
  const chunks: Buffer[] = []
  for await (const chunk of process.stdin) chunks.push(chunk)
  await tellCredentials(process.argv[2] ?? DEFAULT_ADDRESS, Buffer.concat(chunks))
} catch (error) {
  process.stderr.write(`stargz-store-helper: ${describeError(error)}\n`)
  process.exitCode = 1
}
