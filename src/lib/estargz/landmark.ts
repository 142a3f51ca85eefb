// Names and contents that eStargz reserves in a layer's root (eStargz spec, "Prioritized Files and Landmark Files").

/** Ends the group of files to fetch before the container starts. */
export const PREFETCH_LANDMARK = '.prefetch.landmark'
/** Says that there is no such group; the first entry. */
export const NO_PREFETCH_LANDMARK = '.no.prefetch.landmark'
/** The tar entry that holds the TOC. */
export const TOC_NAME = 'stargz.index.json'
/** What a landmark file contains: one byte. */
export const LANDMARK_CONTENTS = 0x0f

/** True for a clean path at which a layer's own files cannot be. */
export function isLandmark(path: string): boolean {
  return path === PREFETCH_LANDMARK || path === NO_PREFETCH_LANDMARK
}

/** True for what only describes the layer: landmarks and the TOC. */
export function isDescribing(path: string): boolean {
  return isLandmark(path) || path === TOC_NAME
}
