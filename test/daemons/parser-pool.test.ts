import {describe, expect, it} from 'vitest'
import {createParserPool} from '../../src/daemons/snapshotter/parser-pool.ts'
import {encodeExternalTocFooter} from '../../src/lib/estargz/footer.ts'
import {encodeToc, type TocEntry} from '../../src/lib/estargz/toc.ts'

/** A layer of empty files with its TOC outside. */
function taskOf(files: number) {
  const tail = encodeExternalTocFooter()
  const entries = Array.from({length: files}, (_, index): TocEntry => ({name: `d/f${index}`, type: 'reg'}))
  return {
    where: 'the layer',
    blobSize: tail.length,
    tail,
    externalToc: encodeToc(entries),
    tocDigest: undefined,
    wantsImage: true,
  }
}

const SMALL = taskOf(3)
/** Takes seconds. */
const LARGE = taskOf(200_000)

/** What a promise was rejected with. */
const reasonOf = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  )

describe('threads that parse layers', () => {
  it('give what they made, and the errors of layers that they cannot parse', async () => {
    await using pool = createParserPool()
    expect((await pool.parse(SMALL, {})).format).toBe('eStargz with an external TOC')
    const wrong = pool.parse({...SMALL, externalToc: Buffer.from('{')}, {})
    await expect(wrong).rejects.toMatchObject({code: 'corrupt'})
    const hostile = `{"version":1,"entries":[${'[],'.repeat(1_000_000)}[]]}`
    const refused = pool.parse({...SMALL, externalToc: Buffer.from(hostile)}, {})
    await expect(refused).rejects.toMatchObject({code: 'corrupt'})
    expect((await pool.parse(SMALL, {})).image).toBeDefined()
  })

  it('end when whoever asked gives up, and others go on', async () => {
    await using pool = createParserPool()
    const giveUp = new AbortController()
    const large = reasonOf(pool.parse(LARGE, {signal: giveUp.signal}))
    await pool.parse(SMALL, {})
    giveUp.abort(new Error('Enough'))
    expect(await large).toMatchObject({message: 'Enough'})
    expect((await pool.parse(SMALL, {})).image).toBeDefined()
  })

  it('end after a deadline', async () => {
    await using pool = createParserPool({deadlineMs: 1})
    const late = pool.parse(LARGE, {})
    await expect(late).rejects.toMatchObject({
      code: 'unavailable',
      message: 'Cannot parse the layer: it takes more than 0.001 seconds',
    })
  })

  it('keep nobody waiting for a turn that gives up, and nobody at all when they are closed', async () => {
    const pool = createParserPool()
    const giveUp = new AbortController()
    // More than there ever are threads.
    const busy = Array.from({length: 4}, () => reasonOf(pool.parse(LARGE, {})))
    const waiting = reasonOf(pool.parse(SMALL, {signal: giveUp.signal}))
    giveUp.abort(new Error('Enough'))
    expect(await waiting).toMatchObject({message: 'Enough'})
    await pool[Symbol.asyncDispose]()
    for (const reason of await Promise.all(busy)) expect(reason).toMatchObject({code: 'cancelled'})
    await expect(pool.parse(SMALL, {})).rejects.toMatchObject({code: 'cancelled'})
  })
})
