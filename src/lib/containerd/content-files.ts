// containerd's own files of its blobs. Where this process may read them, that is several times faster than the socket.

import {access, constants} from 'node:fs/promises'
import {join} from 'node:path'
import {openFileBlob} from '../blob/file-blob.ts'
import {hasCode} from '../errors/coded-error.ts'
import type {CallOptions, OpenBlob} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {hexOf} from '../oci/digest.ts'
import type {ContainerdClient} from './client.ts'
import {describePlace} from './failure.ts'
import {Introspection} from './proto/introspection_pb.ts'

export interface ContentFiles {
  /**
   * Opens the file of a blob that the namespace has; undefined when it must be read through the socket. Bytes are what
   * the socket would give: verified by `stream`, and open as long as the blob is, whatever is collected meanwhile.
   */
  open(descriptor: Descriptor, options: CallOptions): Promise<OpenBlob | undefined>
}

/** Finds the files when they are first asked for: not of a containerd elsewhere, nor for a user who may not read them. */
export function createContentFiles(client: ContainerdClient): ContentFiles {
  let found: Promise<string | undefined> | undefined
  return {
    async open(descriptor, options) {
      found ??= findDirectory(client, options).catch(error => {
        found = undefined
        throw error
      })
      const directory = await found
      if (directory === undefined) return undefined
      try {
        const path = join(directory, hexOf(descriptor.digest))
        return await openFileBlob(path, descriptor, {where: describePlace(client)})
      } catch (error) {
        // Another machine's path, or a file that does not look like the blob: containerd has the last word.
        if (hasCode(error, 'not-found', 'permission-denied', 'corrupt')) return undefined
        throw error
      }
    },
  }
}

/** Where the content plugin says that its blobs are, if that is a directory that we may read. */
async function findDirectory(client: ContainerdClient, options: CallOptions): Promise<string | undefined> {
  const request = {filters: ['type==io.containerd.content.v1']}
  const doing = 'find the content store'
  try {
    const {plugins} = await client.call(Introspection.method.plugins, request, {...options, doing})
    const root = plugins.find(({id}) => id === 'content')?.exports.root
    if (!root?.startsWith('/')) return undefined
    const directory = join(root, 'blobs/sha256')
    await access(directory, constants.R_OK | constants.X_OK)
    return directory
  } catch (error) {
    // "unsupported" is a containerd without introspection.
    if (hasCode(error, 'not-found', 'permission-denied', 'unsupported')) return undefined
    throw error
  }
}
