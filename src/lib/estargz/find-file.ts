// Finds files of an open layer by name.

import {CodedError} from '../errors/coded-error.ts'
import {cleanPath} from '../tar/path.ts'
import type {LayerFile} from './index-toc.ts'
import type {OpenLayer} from './layer-reader.ts'

/**
 * The file at `path`, however that is spelled: where it is a hard link, the file that it is another name of. Symbolic links
 * are not followed, because they may lead to other layers. Undefined when the layer has none; throws `corrupt` for a hard
 * link that leads nowhere.
 */
export function findFile({files}: Pick<OpenLayer, 'files'>, path: string): LayerFile | undefined {
  const seen = new Set<LayerFile>()
  let file = files.get(cleanPath(path) ?? path)
  while (file?.entry.type === 'hardlink') {
    const target = cleanPath(file.entry.linkName ?? '')
    seen.add(file)
    const next = target === undefined ? undefined : files.get(target)
    if (!next || seen.has(next)) {
      throw new CodedError('corrupt', `Cannot find ${JSON.stringify(path)}: its hard link leads nowhere`)
    }
    file = next
  }
  return file
}
