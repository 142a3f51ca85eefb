// An OCI archive: the tar of an image layout directory (image-spec image-layout.md), as `ctr images export` writes it.

import {nameOfEntry} from '../layout/image-entries.ts'
import {parseLayoutIndex} from '../layout/layout-index.ts'
import {hexOf} from '../oci/digest.ts'
import {MAX_MANIFEST_SIZE} from '../oci/manifest.ts'
import {createArchiveContent} from './archive-content.ts'
import {type ArchiveMembers, readMember} from './archive-members.ts'
import type {ImageArchive} from './image-archive.ts'

/** Reads the images of an OCI archive; its blobs are served from where they are. */
export async function readOciArchive(
  members: ArchiveMembers,
): Promise<Pick<ImageArchive, 'images' | 'content'>> {
  const bytes = await readMember(members, 'index.json', MAX_MANIFEST_SIZE)
  const {manifests} = parseLayoutIndex(bytes, `the index.json in ${members.where}`)
  return {
    images: manifests.map(target => {
      const name = nameOfEntry(target)
      return {names: name === undefined ? [] : [name], target}
    }),
    content: createArchiveContent({
      file: members.file,
      name: members.where,
      find: digest => members.find(`blobs/sha256/${hexOf(digest)}`),
    }),
  }
}
