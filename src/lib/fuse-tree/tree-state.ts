// The state file of a layer, as the reference's file system has it (its docs/overview.md): a directory at the layer's root
// that no listing shows, and in it a JSON file that says how much of the layer has been fetched.

/** Of the directory, whose name cannot be listed but only known; what is in it can. */
export const STATE_DIRECTORY_NAME = Buffer.from('.stargz-snapshotter')

/** How a layer is doing. */
export interface LayerState {
  /** Of the layer's blob; the file's name is this and `.json`. */
  readonly digest: string
  /** Bytes of the blob, and how many of them have been fetched. */
  readonly size: number
  readonly fetchedSize: number
  /** Why a read failed last. */
  readonly error?: string | undefined
}

/** A state file; what it says changes only when it is asked to look again. */
export interface StateFile {
  readonly bytes: Buffer
  /** Moves whenever the contents do: the kernel drops what it has cached of a file whose time has changed. */
  readonly mtimeSeconds: number
  /** Looks how the layer is doing. */
  refresh(): void
}

export function createStateFile(read: () => LayerState): StateFile {
  let bytes = encodeLayerState(read())
  let mtimeSeconds = Math.floor(Date.now() / 1000)
  return {
    get bytes() {
      return bytes
    },
    get mtimeSeconds() {
      return mtimeSeconds
    },
    refresh: () => {
      const fresh = encodeLayerState(read())
      if (fresh.equals(bytes)) return
      bytes = fresh
      mtimeSeconds = Math.max(mtimeSeconds + 1, Math.floor(Date.now() / 1000))
    },
  }
}

/** One line of JSON; `error` stands first, and only when there is one. */
export function encodeLayerState({digest, size, fetchedSize, error}: LayerState): Buffer {
  const fetchedPercent = size === 0 ? 100 : (100 * fetchedSize) / size
  return Buffer.from(
    `${JSON.stringify({...(error ? {error} : {}), digest, size, fetchedSize, fetchedPercent})}\n`,
  )
}
