import {describe, expect, it} from 'vitest'
import {explanationPage} from '../../src/cli/explain-page.ts'
import {describeExplanation} from '../../src/cli/explain-report.ts'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {ExplainedImage} from '../../src/lib/explain/explain-image.ts'

const HOSTILE = `<script>alert(1)</script>"'&\u0000\ud800`

function imageOf(files: number): ExplainedImage {
  const layer = {
    digest: digestOf('layer'),
    size: 1_000_000,
    format: 'eStargz',
    problem: undefined,
    tocBytes: 1000,
    landmarkBytes: 500_000,
    plan: [
      {offset: 0, end: 1000, atMs: 0},
      {offset: 5000, end: 100_000, atMs: 300},
    ],
    planBytes: 96_000,
    prefetchBytes: 96_000,
    readBytes: 0,
    missedBytes: 0,
    wastedBytes: 0,
    files: Array.from({length: files}, (_, index) => ({
      path: `${HOSTILE}${index}`,
      size: 4000,
      storedBytes: 2000,
      prefetchBytes: 1000,
      firstMs: 3,
      readBytes: 0,
      missedBytes: 0,
    })),
  }
  const whole = {...layer, format: undefined, problem: HOSTILE, plan: undefined, files: []}
  return {digest: digestOf('image'), platform: undefined, layers: [layer, whole], isCompared: false}
}

const pageOf = (image: ExplainedImage) =>
  explanationPage(describeExplanation(HOSTILE, image, {delayMs: 10, mbit: 200}))

describe('the page of image explain', () => {
  it('runs nothing, asks nobody, and shows names as they are', () => {
    const page = pageOf(imageOf(3))
    expect(page).not.toMatch(/<script|onload|onerror|https?:|url\(|@import|<link|<img/i)
    expect(page).toContain('&#60;script&#62;alert(1)&#60;/script&#62;&#34;&#39;&#38;\ufffd\ufffd')
    expect(page.isWellFormed()).toBe(true)
  })

  it('opens and closes every element', () => {
    const open: string[] = []
    for (const [, slash, name, , closed] of pageOf(imageOf(3)).matchAll(
      /<(\/?)([a-z0-9]+)([^<>]*?)(\/?)>/g,
    )) {
      if (closed || name === 'meta') continue
      if (slash) expect(open.pop()).toBe(name)
      else open.push(name!)
    }
    expect(open).toEqual([])
  })

  it('stays small for an image of many files, of which it tells the largest', () => {
    const page = pageOf(imageOf(300_000))
    expect(page.length).toBeLessThan(100_000)
    expect(page).toContain('And 299940 more files: 286.0 MiB.')
  })

  it('has no timeline where nothing is known of times', () => {
    const image = imageOf(0)
    expect(pageOf(image)).toContain('<h2>Timeline</h2>')
    const layers = image.layers.map(layer => ({...layer, plan: undefined}))
    const page = pageOf({...image, layers})
    expect(page).not.toMatch(/<h2>(Timeline|Files)/)
    expect(page).toContain('<h2>Layers</h2>')
  })

  it('sets two images side by side', () => {
    const own = describeExplanation('app:2', imageOf(1), {delayMs: 10, mbit: 200})
    const page = explanationPage({...own, against: {...own, name: 'app:1'}})
    expect(page).toMatch(/<h2>Comparison<\/h2>[\s\S]*app:2[\s\S]*app:1/)
  })
})
