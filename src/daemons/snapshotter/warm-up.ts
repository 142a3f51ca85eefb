// A layer that does not exist, for the threads that parse layers to practise on: V8 compiles what has run often, and without
// practice the first image would wait for that, and for the threads (measured on a busy machine: the four layers of a Python
// image take one thread 0.53 s, with practice 0.29 s).

import {encodeExternalTocFooter} from '../../lib/estargz/footer.ts'
import {encodeToc, type TocEntry} from '../../lib/estargz/toc.ts'
import {digestOf} from '../../lib/io/sha256.ts'
import type {LayerParser, ParseTask} from '../../lib/layer/parse-layer.ts'

const DIRECTORIES = 60
const FILES_EACH = 25

const ROUNDS = 10

/** Lets as many threads as `threads` practise. Gives up silently: who has a layer to parse will hear of what is wrong. */
export async function warmUp(parse: LayerParser, threads: number): Promise<void> {
  const task = practiceTask()
  try {
    for (let round = 0; round < ROUNDS; round++) {
      await Promise.all(Array.from({length: threads}, () => parse(task, {})))
    }
  } catch {}
}

/** A layer of 1,620 entries. */
function practiceTask(): ParseTask {
  const externalToc = encodeToc(inventToc())
  return {
    where: 'a layer to practise on',
    blobSize: 2 ** 40,
    // Longer than any footer, because all kinds are tried.
    tail: Buffer.concat([new Uint8Array(1024), encodeExternalTocFooter()]),
    externalToc,
    tocDigest: digestOf(externalToc),
    wantsImage: true,
  }
}

function inventToc(): TocEntry[] {
  const entries: TocEntry[] = []
  const common = {modtime: '2026-01-02T03:04:05Z', userName: 'root', groupName: 'root'}
  const digest = digestOf('')
  for (let index = 0; index < DIRECTORIES; index++) {
    const directory = `usr/share/package-${index}/`
    entries.push({...common, name: directory, type: 'dir', mode: 0o755})
    for (let file = 0; file < FILES_EACH; file++) {
      const name = `${directory}file-${file}.txt`
      const place = {offset: entries.length * 1000, digest, chunkDigest: digest}
      entries.push({...common, name, type: 'reg', mode: 0o644, size: 5000 + file, ...place})
    }
    entries.push({...common, name: `${directory}link`, type: 'symlink', mode: 0o777, linkName: 'file-1.txt'})
  }
  return entries
}
