// A daemon's root directory.

import {mkdir, realpath} from 'node:fs/promises'
import {CodedError, codeOf} from '../../lib/errors/coded-error.ts'

/**
 * Makes the root directory where it is missing. Resolves to its path without symlinks, which is how the kernel's list of
 * mounts knows what is mounted below it.
 */
export async function makeRoot(root: string): Promise<string> {
  requireUsable(root)
  try {
    await mkdir(root, {recursive: true, mode: 0o700})
    return requireUsable(await realpath(root))
  } catch (cause) {
    throw new CodedError(codeOf(cause), `Cannot make the root directory "${root}"`, {cause})
  }
}

/**
 * Throws `invalid-argument` for a path that cannot be named in a mount's options, where these characters divide and escape
 * (docs.kernel.org, "Overlay Filesystem", "Multiple lower layers"), and containerd escapes none.
 */
function requireUsable(root: string): string {
  const found = /[:,\\\n]/.exec(root)?.[0]
  if (found === undefined) return root
  throw new CodedError(
    'invalid-argument',
    `Cannot use the root directory ${JSON.stringify(root)}: mount options cannot name a path with ${JSON.stringify(found)}; choose another --root`,
  )
}
