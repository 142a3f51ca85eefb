// What containerd knows of a blob besides its bytes.

import {hasCode} from '../errors/coded-error.ts'
import type {CallOptions, ContentInfo} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import type {ContainerdClient} from './client.ts'
import type {Labels} from './gc-labels.ts'
import {Content} from './proto/content_pb.ts'

/** What containerd knows of a blob, or undefined. */
export async function readInfo(
  client: ContainerdClient,
  digest: Digest,
  options: CallOptions,
): Promise<ContentInfo | undefined> {
  try {
    const {info} = await client.call(Content.method.info, {digest}, {...options, doing: `look for ${digest}`})
    return {digest, size: Number(info?.size ?? 0n), labels: info?.labels ?? {}}
  } catch (error) {
    if (hasCode(error, 'not-found')) return undefined
    throw error
  }
}

/** Merges labels into a blob's; an empty value removes one. Throws `not-found`. */
export async function updateLabels(
  client: ContainerdClient,
  digest: Digest,
  labels: Labels,
  options: CallOptions,
): Promise<void> {
  const paths = Object.keys(labels).map(key => `labels.${key}`)
  if (paths.length === 0) return
  await client.call(
    Content.method.update,
    {info: {digest, labels: {...labels}}, updateMask: {paths}},
    {...options, doing: `label ${digest}`},
  )
}
