import {existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {afterEach, beforeEach, expect, it} from 'vitest'
import {openConversionCache} from '../../src/lib/cache/conversion-cache.ts'
import type {ConversionFacts} from '../../src/lib/convert/conversion-cache.ts'
import {digestOf} from '../../src/lib/io/sha256.ts'

let directory: string

beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), 'conversions-')), 'cache')
})

afterEach(() => rmSync(join(directory, '..'), {recursive: true}))

const facts: ConversionFacts = {
  descriptor: {mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: digestOf('layer'), size: 5},
  diffId: digestOf('tar'),
  prioritized: {files: 2, bytes: 10, missing: ['gone']},
}

it('finds what was remembered, also in another process', async () => {
  await openConversionCache(directory).remember('aa', facts)
  expect(await openConversionCache(directory).find('aa')).toEqual(facts)
})

it('knows nothing at first, and makes no directory to say so', async () => {
  expect(await openConversionCache(directory).find('aa')).toBeUndefined()
  expect(existsSync(directory)).toBe(false)
})

it('takes a damaged entry for a missing one', async () => {
  const cache = openConversionCache(directory)
  await cache.remember('aa', facts)
  for (const damaged of ['', '{"descriptor":', '{}', '[]', JSON.stringify({...facts, diffId: 'sha256:0'})]) {
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
