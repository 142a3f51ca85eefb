// Where an archive is put together: a temporary layout beside its final name, so that it appears whole or not at all.

import {randomBytes} from 'node:crypto'
import {mkdir, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {dirname, join} from 'node:path'
import {canStageBeside, findOutput, type OutputPlace, openOutput} from '../io/output.ts'
import {makeTemporaryDirectory} from '../io/temporary-directory.ts'
import {createBlobFiles} from '../layout/blob-files.ts'
import {type LayoutPaths, layoutPaths} from '../layout/layout-paths.ts'
import {writeError} from '../layout/staged-file.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import {type MemberToWrite, writeTar} from './tar-writer.ts'

/** A layout on its way into an archive. Disposing it removes the layout, and an archive that was not finished. */
export interface ArchiveStaging extends AsyncDisposable {
  readonly paths: LayoutPaths
  readonly content: ContentStore
  /** A directory for other temporary files. */
  readonly scratch: string
  /** Writes the archive and gives it its name. */
  finish(members: Iterable<MemberToWrite> | AsyncIterable<MemberToWrite>, options: CallOptions): Promise<void>
}

/** Prepares to write the archive at `path`: a file, which is replaced, or whatever else can be written to. */
export async function stageArchive(path: string, name: string): Promise<ArchiveStaging> {
  const {place, directory} = await prepare(path).catch(cause => {
    throw writeError({root: dirname(path)}, cause)
  })
  const paths = layoutPaths(join(directory, 'layout'))
  return {
    paths,
    content: createBlobFiles(paths, {name, labels: false, leases: new Set()}),
    scratch: directory,
    async finish(members, options) {
      try {
        await using output = await openOutput(place, {...options, staged: join(directory, 'archive.tar')})
        await writeTar(members, output, options)
        await output.commit()
      } catch (cause) {
        throw writeError({root: dirname(path)}, cause)
      }
    },
    [Symbol.asyncDispose]: () => rm(directory, {recursive: true, force: true}),
  }
}

/** Beside a file, so that the finished archive need only be renamed; else among temporary files. */
async function prepare(path: string): Promise<{readonly place: OutputPlace; readonly directory: string}> {
  const place = await findOutput(path)
  if (place.kind !== 'file' || (place.existing && !(await canStageBeside(place.path)))) {
    return {place, directory: await makeTemporaryDirectory(tmpdir(), 'ctr-remote-archive-')}
  }
  const directory = `${place.path}.${randomBytes(6).toString('hex')}.tmp`
  await mkdir(directory, {mode: 0o700})
  return {place, directory}
}
