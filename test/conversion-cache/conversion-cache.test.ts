import {existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {afterEach, beforeEach, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {openConversionCache} from '../../src/lib/conversion-cache/conversion-cache.ts'
import type {ConversionFacts} from '../../src/lib/convert/conversion-cache.ts'

let directory: string

beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), 'conversions-')), 'cache')
})

afterEach(() => rmSync(join(directory, '..'), {recursive: true}))

const facts: ConversionFacts = {
  descriptor: {mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: digestOf('layer'), size: 5},
  diffId: digestOf('tar'),
  prioritized: {files: 2, bytes: 10, unmoved: [], misread: [], replaced: [], missing: ['gone']},
}

it('finds what was remembered, also in another process', async () => {
  await openConversionCache(directory).remember('aa', facts)
  expect(await openConversionCache(directory).find('aa')).toEqual(facts)
})

it('remembers layers without an order, and TOCs that are kept outside', async () => {
  const {prioritized: _, ...plain} = facts
  const outside = {...facts, detachedToc: {digest: digestOf('toc'), size: 3}}
  const cache = openConversionCache(directory)
  await cache.remember('aa', plain)
  await cache.remember('bb', outside)
  expect(await cache.find('aa')).toEqual(plain)
  expect(await cache.find('bb')).toEqual(outside)
})

it('knows nothing at first, and makes no directory to say so', async () => {
  expect(await openConversionCache(directory).find('aa')).toBeUndefined()
  expect(existsSync(directory)).toBe(false)
})

it('takes a damaged entry for a missing one', async () => {
  const cache = openConversionCache(directory)
  await cache.remember('aa', facts)
  const changed = (change: object) => JSON.stringify({...facts, ...change})
  for (const damaged of [
    ...['', '{"descriptor":', '{}', '[]', changed({diffId: 'sha256:0'}), changed({prioritized: 'all'})],
    ...[changed({prioritized: {files: 1}}), changed({detachedToc: {digest: 'sha256:0', size: 1}})],
  ]) {
    writeFileSync(join(directory, 'aa.json'), damaged)
    expect(await cache.find('aa')).toBeUndefined()
  }
  await cache.remember('aa', facts)
  expect(await cache.find('aa')).toEqual(facts)
})

it('leaves no staged files behind', async () => {
  await openConversionCache(directory).remember('aa', facts)
  expect(readdirSync(directory)).toEqual(['aa.json'])
})
