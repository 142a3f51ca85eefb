// Where the API of this user's IPFS node is: a multiaddr in the file `api` of the node's repository, as Kubo writes it.

import {readFile} from 'node:fs/promises'
import {join} from 'node:path'
import {CodedError, hasCode} from '../errors/coded-error.ts'

type Environment = Readonly<Record<string, string | undefined>>

/** A longer file is no address. */
const MAX_ADDRESS = 1024

/**
 * Reads `$IPFS_PATH/api`, else `~/.ipfs/api`. Throws `failed-precondition` where there is no node, `unsupported` for an
 * address that is not of HTTP over TCP.
 */
export async function findIpfsApi(env: Environment): Promise<URL> {
  const path = join(repositoryOf(env), 'api')
  const text = await readFile(path, 'utf8').catch(cause => {
    if (!hasCode(cause, 'not-found')) throw cause
    throw new CodedError(
      'failed-precondition',
      `Cannot find an IPFS node: there is no "${path}"; start one (ipfs daemon), or set IPFS_PATH to its repository`,
      {cause},
    )
  })
  return urlOfMultiaddr(text.slice(0, MAX_ADDRESS).trim(), path)
}

function repositoryOf({IPFS_PATH, HOME}: Environment): string {
  if (IPFS_PATH) return IPFS_PATH
  if (HOME) return join(HOME, '.ipfs')
  throw new CodedError(
    'failed-precondition',
    'Cannot find an IPFS node: there is no home directory; set IPFS_PATH to its repository',
  )
}

/** `/ip4/127.0.0.1/tcp/5001` as `http://127.0.0.1:5001`; `where` names it in messages. */
export function urlOfMultiaddr(address: string, where: string): URL {
  const match = /^\/(ip4|ip6|dns|dns4|dns6)\/([A-Za-z0-9.:_-]{1,255})\/tcp\/(\d{1,5})(?:\/http)?\/?$/.exec(
    address,
  )
  const [, kind, host = '', port = ''] = match ?? []
  const url = `http://${kind === 'ip6' ? `[${host}]` : host}:${port}`
  if (match && URL.canParse(url)) return new URL(url)
  throw new CodedError(
    'unsupported',
    `Cannot use the address of the IPFS node in "${where}": ${JSON.stringify(address)} is not HTTP over TCP, such as "/ip4/127.0.0.1/tcp/5001"`,
  )
}
