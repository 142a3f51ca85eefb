// Entries of layers in few words.

import type {LayerEntry} from '../../src/lib/vfs/layer-tree.ts'

/** `a/` is a directory, `a→b` a symbolic link, `a=b` a hard link, anything else an empty file; owned by root. */
export function entryOf(text: string): LayerEntry {
  const [, name = '', sign, linkName = ''] = /^([^→=]*)([→=]?)(.*)$/.exec(text) ?? []
  const isDirectory = sign === '' && name.endsWith('/')
  return {
    name,
    linkName,
    type: sign === '→' ? 'symlink' : sign === '=' ? 'hardlink' : isDirectory ? 'dir' : 'reg',
    mode: isDirectory ? 0o755 : 0o644,
    uid: 0,
    gid: 0,
    mtimeSeconds: 0,
    mtimeNanoseconds: 0,
    devMajor: 0,
    devMinor: 0,
    size: 0,
    xattrs: undefined,
  }
}
