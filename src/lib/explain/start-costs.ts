// What a start costs on a link, and what could be done about it: estimates from sizes alone, said as such.

import type {ExplainedImage} from './explain-image.ts'

/** One way, milliseconds, and megabits per second. */
export interface Link {
  readonly delayMs: number
  readonly mbit: number
}

/** Compressed bytes of all layers together. */
export interface StartTotals {
  readonly imageBytes: number
  readonly tocBytes: number
  /** Layers that cannot be read lazily, which are pulled before the start. */
  readonly unlazyBytes: number
  /** By the landmarks, as other readers prefetch, and by plans where there are some, as ours does. */
  readonly landmarkBytes: number
  readonly prefetchBytes: number
  readonly readBytes: number
  readonly missedBytes: number
  readonly wastedBytes: number
}

/** Seconds that bytes and round trips take on the link, and nothing else. */
export interface StartCosts {
  readonly fullS: number
  readonly landmarkS: number
  readonly prefetchS: number
}

export interface Advice {
  readonly isGood: boolean
  readonly text: string
}

/** Manifest and config, then the layers: one round trip each. */
const FULL_TRIPS = 3
/** Manifest, config, the ends of all blobs at once, then what comes first; other readers ask for footer and TOC one after the other. */
const LAZY_TRIPS = 4
const LANDMARK_TRIPS = 5
/** Of an image that is read nearly whole, lazy pulling only delays the rest. */
const DENSE_SHARE = 0.6
/** TOCs of less are not worth a word. */
const LARGE_TOCS = 1 << 20

export function totalsOfImage({layers}: ExplainedImage): StartTotals {
  const sum = (bytesOf: (layer: (typeof layers)[number]) => number) =>
    layers.reduce((bytes, layer) => bytes + bytesOf(layer), 0)
  return {
    imageBytes: sum(({size}) => size),
    tocBytes: sum(({tocBytes}) => tocBytes),
    unlazyBytes: sum(({format, size}) => (format === undefined ? size : 0)),
    landmarkBytes: sum(({landmarkBytes}) => landmarkBytes),
    prefetchBytes: sum(({prefetchBytes}) => prefetchBytes),
    readBytes: sum(({readBytes}) => readBytes),
    missedBytes: sum(({missedBytes}) => missedBytes),
    wastedBytes: sum(({wastedBytes}) => wastedBytes),
  }
}

/** What has been fetched when the container starts, if it starts when all that is prefetched is here. */
export function fetchedBytes({tocBytes, unlazyBytes, prefetchBytes, missedBytes}: StartTotals): number {
  return tocBytes + unlazyBytes + prefetchBytes + missedBytes
}

export function costsOf(totals: StartTotals, {delayMs, mbit}: Link): StartCosts {
  const seconds = (bytes: number, trips: number) => (trips * 2 * delayMs) / 1000 + (bytes * 8) / (mbit * 1e6)
  const {tocBytes, unlazyBytes, landmarkBytes, imageBytes} = totals
  return {
    fullS: seconds(imageBytes, FULL_TRIPS),
    landmarkS: seconds(tocBytes + unlazyBytes + landmarkBytes, LANDMARK_TRIPS),
    prefetchS: seconds(fetchedBytes(totals), LAZY_TRIPS),
  }
}

/** `sizeOf` writes bytes for people. */
export function adviceFor(
  image: ExplainedImage,
  totals: StartTotals,
  sizeOf: (bytes: number) => string,
): readonly Advice[] {
  const {imageBytes, tocBytes, unlazyBytes, landmarkBytes, prefetchBytes, missedBytes, wastedBytes} = totals
  const advice: Advice[] = []
  const warn = (text: string) => advice.push({isGood: false, text})
  const lazy = image.layers.filter(({format}) => format !== undefined)
  const share = (bytes: number, of: number) => `${Math.round((100 * bytes) / of)}\u00a0%`
  if (lazy.length === 0) {
    warn('No layer can be read lazily. Convert the image: ctr-remote image optimize --oci SOURCE TARGET')
    return advice
  }
  if (unlazyBytes > 0) {
    const count = image.layers.length - lazy.length
    warn(`${count} of ${image.layers.length} layers are pulled whole before a start: ${sizeOf(unlazyBytes)}.`)
  }
  const hasPlan = lazy.some(({plan}) => plan !== undefined)
  if (!hasPlan && landmarkBytes === 0) {
    warn(
      'Nothing says what a start reads, so that it waits for each thing that it reads. ctr-remote image optimize finds out.',
    )
  } else if (!hasPlan) {
    warn(
      `Whole files are fetched before a start, ${sizeOf(landmarkBytes)}. Optimize the image again: then only what is read of them is.`,
    )
  } else if (landmarkBytes > prefetchBytes) {
    const text = `A start fetches ${sizeOf(prefetchBytes)} of the ${sizeOf(landmarkBytes)} of its files: ${share(prefetchBytes, landmarkBytes)}.`
    advice.push({isGood: true, text})
  }
  const fetched = fetchedBytes(totals)
  if (fetched >= imageBytes * DENSE_SHARE) {
    warn(
      `Do not pull this image lazily: ${share(fetched, imageBytes)} of it is fetched for a start, so that pulling it whole costs little more.`,
    )
  }
  if (tocBytes > LARGE_TOCS && tocBytes > prefetchBytes) {
    warn(
      `Tables of contents are ${sizeOf(tocBytes)}, more than what is read. Leave out files that nobody needs: documentation, caches, headers.`,
    )
  }
  if (!image.isCompared) return advice
  if (missedBytes > 0) {
    warn(
      `What the profile reads is not all prefetched: ${sizeOf(missedBytes)} come only when they are read. Convert the image with this profile (--profile).`,
    )
  }
  if (wastedBytes > prefetchBytes / 4) {
    warn(`${sizeOf(wastedBytes)} of ${sizeOf(prefetchBytes)} are prefetched and not read by this profile.`)
  }
  if (missedBytes === 0) advice.push({isGood: true, text: 'All that the profile reads is prefetched.'})
  return advice
}
