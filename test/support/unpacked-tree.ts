// Trees on disk, as text that can be compared, and GNU tar to make them.

import {execFileSync} from 'node:child_process'
import {temporaryDirectory} from './temporary.ts'

/** What conversion adds to a layer's root. */
export const ADDED_FILES = ['.no.prefetch.landmark', '.prefetch.landmark', 'stargz.index.json']

/**
 * Everything that a directory tree is, one line a file, but for the sizes of directories, which are the file system's own.
 * Needs `getfattr`, and root to see it all.
 */
export function describeTree(root: string): string {
  const script = `find . \\( -type d -printf '%p d %m %U %G %T@\\n' \\) -o -printf '%p %y %m %U %G %T@ %s %l %n\\n' | sort
    find . -type f | sort | xargs -r -d '\\n' sha256sum
    find . \\( -type b -o -type c \\) | sort | xargs -r stat -c '%n %t %T'
    find . | sort | xargs -r -d '\\n' getfattr -h -d -m - -e hex`
  return execFileSync('sh', ['-c', script], {cwd: root, encoding: 'utf8', maxBuffer: 1 << 28})
}

/** Unpacks a tar into a fresh directory of the running test, but for the files `excluded`. */
export async function unpackTar(tar: Uint8Array, excluded: readonly string[] = []): Promise<string> {
  const directory = await temporaryDirectory()
  const options = [
    '--xattrs',
    '--xattrs-include=*',
    '--numeric-owner',
    '--same-owner',
    '--delay-directory-restore',
    '-p',
  ]
  const excludes = excluded.map(name => `--exclude=${name}`)
  execFileSync('tar', ['-x', ...options, ...excludes, '-C', directory], {
    input: tar,
    stdio: ['pipe', 'ignore', 'inherit'],
  })
  return directory
}
