// Whether the prefetch plan of a layer's descriptor is one, and fits the layer.

import {describeError, hasCode} from '../errors/coded-error.ts'
import type {Finding} from '../estargz/finding.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {PREFETCH_PLAN, parsePrefetchPlan} from '../prefetch/prefetch-plan.ts'

/** `streamStarts` are all places of the blob where a stream starts, `dataEnd` is where those of files have ended. */
export function checkPlan(
  {annotations}: Descriptor,
  {streamStarts, dataEnd}: {readonly streamStarts: ReadonlyMap<number, number>; readonly dataEnd: number},
): readonly Finding[] {
  const text = annotations?.[PREFETCH_PLAN]
  if (text === undefined) return []
  try {
    const isEdge = (place: number) => place === dataEnd || (place < dataEnd && streamStarts.has(place))
    const stray = parsePrefetchPlan(text).find(({offset, end}) => !isEdge(offset) || !isEdge(end))
    return stray
      ? [finding(`It names the bytes from ${stray.offset} to ${stray.end}, which are no streams`)]
      : []
  } catch (error) {
    if (!hasCode(error, 'corrupt', 'unsupported')) throw error
    return [finding(describeError(error))]
  }
}

function finding(message: string): Finding {
  return {kind: 'prefetch-plan', message}
}
