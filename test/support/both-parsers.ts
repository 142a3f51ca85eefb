// The two parsers of layers side by side: what the JavaScript one makes of a layer, the native one must make too, and what
// it refuses must be refused with the same words.

import {expect} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {codeOf, type ErrorCode, messageOf} from '../../src/lib/errors/coded-error.ts'
import {GZIP_DECOMPRESSORS} from '../../src/lib/estargz/decompressor.ts'
import {encodeExternalTocFooter} from '../../src/lib/estargz/footer.ts'
import {createNativeParser} from '../../src/lib/layer/native-parser.ts'
import {createLayerParser, type ParsedLayer, type ParseTask} from '../../src/lib/layer/parse-layer.ts'
import {ZSTD_DECOMPRESSORS} from '../../src/lib/zstdchunked/decompressor.ts'

const decompressors = [...GZIP_DECOMPRESSORS, ...ZSTD_DECOMPRESSORS]

export const parseInJavaScript = createLayerParser(decompressors)
export const nativeParser = createNativeParser({decompressors})

export interface Refused {
  readonly code: ErrorCode
  readonly message: string
}

export type Outcome = ParsedLayer | Refused

/** What both say of a layer; throws where they differ. */
export async function parseWithBoth(task: ParseTask): Promise<Outcome> {
  const [expected, found] = await Promise.all([
    outcomeOf(parseInJavaScript(task, {})),
    outcomeOf(nativeParser.parse(task, {})),
  ])
  expect(comparable(found)).toEqual(comparable(expected))
  return expected
}

/** A layer whose TOC is `json`, kept outside; its members end at `dataEnd`. */
export function taskOfToc(
  json: Uint8Array | string,
  dataEnd = 1000,
  rest: Partial<ParseTask> = {},
): ParseTask {
  const tail = encodeExternalTocFooter()
  const externalToc = typeof json === 'string' ? Buffer.from(json) : json
  return {
    where: 'the layer',
    blobSize: dataEnd + tail.length,
    // Longer than any footer, because all kinds are tried.
    tail: Buffer.concat([new Uint8Array(Math.min(dataEnd, 64)), tail]),
    externalToc,
    tocDigest: digestOf(externalToc),
    wantsImage: true,
    ...rest,
  }
}

async function outcomeOf(parsed: Promise<ParsedLayer>): Promise<Outcome> {
  try {
    return await parsed
  } catch (error) {
    return {code: codeOf(error), message: messageOf(error)}
  }
}

/** With bytes as text, which is compared a thousand times faster. */
function comparable(outcome: Outcome): unknown {
  if ('code' in outcome) return outcome
  const {map, image, ...rest} = outcome
  const fields = Object.entries(map).map(([name, value]) => [
    name,
    ArrayBuffer.isView(value) ? [value.constructor.name.replace('Buffer', 'Uint8Array'), hex(value)] : value,
  ])
  return {...rest, image: image && hex(image), map: Object.fromEntries(fields)}
}

function hex({buffer, byteOffset, byteLength}: ArrayBufferView): string {
  return Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength).toString('hex')
}
