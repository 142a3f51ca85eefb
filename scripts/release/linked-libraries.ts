// The libraries that are linked into native/build of a release, by Debian's packages of them.

import {execFileSync} from 'node:child_process'

export const LINKED_LIBRARIES = [
  {name: 'libdeflate', debian: 'libdeflate-dev', license: 'MIT'},
  {name: 'zlib', debian: 'zlib1g-dev', license: 'Zlib'},
  {name: 'zstd', debian: 'libzstd-dev', license: 'BSD-3-Clause'},
  {name: 'openssl', debian: 'libssl-dev', license: 'Apache-2.0'},
  // In the programs beside the addon.
  {name: 'glibc', debian: 'libc6-dev', license: 'LGPL-2.1-or-later'},
] as const

export function versionOf(debian: string): string {
  // NAME, a tab, and the version.
  return execFileSync('dpkg-query', ['-W', debian], {encoding: 'utf8'}).trim().split('	')[1]!
}
