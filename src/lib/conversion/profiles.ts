// Profile files as what comes first in a conversion.

import {readFile} from 'node:fs/promises'
import type {LayerToConvert} from '../convert/convert-image.ts'
import {type Prioritized, whatWasRead} from '../convert/lazy-conversion.ts'
import {CodedError} from '../errors/coded-error.ts'
import {mergeProfiles, parseProfile, profiledFiles} from '../record/profile-file.ts'
import type {RecordEntry} from '../record/record-file.ts'

/** Reads profiles, and records, as one. Throws `not-found` or `invalid-argument`, which name the file. */
export async function readProfiles(files: readonly string[]): Promise<readonly RecordEntry[]> {
  const profiles: (readonly RecordEntry[])[] = []
  for (const file of files) {
    const bytes = await readFile(file).catch(cause => {
      throw new CodedError('not-found', `Cannot read the profile "${file}"`, {cause})
    })
    profiles.push(parseProfile(bytes, `"${file}"`))
  }
  return mergeProfiles(profiles)
}

/** What a profile says comes first in each layer. */
export function profiledFirst(entries: readonly RecordEntry[]): (layer: LayerToConvert) => Prioritized {
  const known = new Map<string, Prioritized>()
  return ({manifestDigest, layerIndex}) => {
    const key = `${manifestDigest} ${layerIndex}`
    const found = known.get(key)
    if (found) return found
    const {paths, reads} = profiledFiles(entries, {manifestDigest, layerIndex})
    const prioritized = whatWasRead(paths, reads)
    known.set(key, prioritized)
    return prioritized
  }
}
