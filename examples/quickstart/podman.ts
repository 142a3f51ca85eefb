// A layer store of our own, and a Podman that sees the images in it and nothing else of this machine.

import {openSync} from 'node:fs'
import {mkdir, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {missingPrograms, ROOT, startService, untilThere} from './programs.ts'

export interface Podman {
  /** The store's socket. */
  readonly address: string
  /** Variables by which Podman finds its configuration. */
  readonly env: Readonly<Record<string, string>>
}

/** Starts the store in `directory`, until `stopPrograms`; or says what this machine lacks. */
export async function startPodmanStore(directory: string): Promise<Podman | string> {
  const missing = missingPrograms(['podman', 'runc'])
  if (missing.length > 0) return `this machine lacks ${missing.join(', ')}`
  const at = (name: string) => join(directory, name)
  await mkdir(at('home'), {recursive: true})
  await writeFile(at('store.toml'), '')
  const words = [`--addr=${at('store.sock')}`, `--root=${at('store')}`, `--config=${at('store.toml')}`]
  // An interrupt has it unmount everything; SIGTERM would leave the mounts to the next store.
  const options = {signal: 'SIGINT', output: openSync(at('log'), 'a')} as const
  startService(join(ROOT, 'bin/stargz-store'), [...words, at('layers')], options)
  await untilThere(at('store.sock'))
  await writeFile(
    at('storage.conf'),
    `[storage]
driver = "overlay"
graphroot = "${at('root')}"
runroot = "${at('run')}"
[storage.options]
additionalimagestores = ["${at('store/images')}"]
`,
  )
  await writeFile(
    at('containers.conf'),
    `[containers]
netns = "none"
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "${at('libpod')}"
`,
  )
  return {
    address: at('store.sock'),
    env: {
      HOME: at('home'),
      PODMAN_IGNORE_CGROUPSV1_WARNING: 'yes',
      CONTAINERS_STORAGE_CONF: at('storage.conf'),
      CONTAINERS_CONF: at('containers.conf'),
    },
  }
}
