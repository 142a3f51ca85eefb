// What is started: images, the commands that run in them, and the line that says that they have started.

import {readFile} from 'node:fs/promises'
import {basename, join, resolve} from 'node:path'
import {execa} from 'execa'

const ROOT = resolve(import.meta.dirname, '../..')
export const CTR_REMOTE = join(ROOT, 'bin/ctr-remote')
const MAKE_IMAGE = join(ROOT, 'examples/images/make-image')

/** What runs in a container, and how it shows that it is ready. */
export interface Workload {
  /** The command in the container; empty for the image's own. */
  readonly args: readonly string[]
  /** What a line of the output looks like once the container has started. */
  readonly ready: RegExp
}

/** An image of the registry, as it was and converted in two ways, and its own workload. Sizes are compressed bytes. */
export interface Subject extends Workload {
  readonly name: string
  readonly layers: number
  readonly size: number
}

/** Reads every file of the image: what is dense is never better lazy than at once, and must not be worse. */
const DENSE: Workload = {
  args: ['sh', '-c', 'find / -xdev -type f -exec cat {} + > /dev/null 2>&1; echo everything was read'],
  ready: /everything was read/,
}

/** `start` is the image's own; for `dense` the image needs a shell and find. */
export const WORKLOAD_NAMES = ['start', 'dense'] as const
export type WorkloadName = (typeof WORKLOAD_NAMES)[number]

export function workloadOf(subject: Subject, name: WorkloadName): Workload {
  return name === 'dense' ? DENSE : subject
}

/** The tags under which the registry has every subject. */
export type Tag = 'plain' | 'esgz' | 'optimized'

/** Workloads of images with these names; the first line that any other image prints means that it is ready. */
const WORKLOADS: Readonly<Record<string, Workload>> = {
  python: {args: ['python3', '-c', 'import json; print(json.dumps({"hello": "world"}))'], ready: /hello/},
  debian: {args: ['perl', '-e', 'print "hello\\n"'], ready: /hello/},
  redis: {args: [], ready: /Ready to accept connections/},
  nginx: {
    args: ['sh', '-c', 'mkdir -p /var/log/nginx; exec nginx -g "daemon off; error_log /dev/stderr notice;"'],
    ready: /start worker process /,
  },
}

/** Makes an image of examples/images, if it is not there yet, as an OCI layout (tag "latest"). */
export async function makeExample(recipe: string, directory: string): Promise<string> {
  const layout = join(directory, recipe)
  await execa(MAKE_IMAGE, [recipe, layout], {stdout: 'inherit', stderr: 'inherit'})
  return layout
}

/** Puts an OCI layout into the registry: as it is, as eStargz, and optimized for its workload. */
export async function publish(layout: string, registry: string): Promise<Subject> {
  const name = basename(layout)
  const {args, ready} = WORKLOADS[name] ?? {args: [], ready: /./}
  const [plain, esgz, optimized] = ['plain', 'esgz', 'optimized'].map(
    tag => `${registry}/${name}:${tag}`,
  ) as [string, string, string]
  const options = {stdout: 'ignore', stderr: 'pipe', env: {CTR_REMOTE_STORE: 'local'}} as const
  await execa(CTR_REMOTE, ['image', 'push', '--quiet', plain, `oci:${layout}:latest`], options)
  const convert = ['--quiet', '--oci', `docker://${plain}`]
  await execa(CTR_REMOTE, ['image', 'convert', '--estargz', ...convert, `docker://${esgz}`], options)
  const workload = [
    `--wait-on-line=${ready.source}`,
    ...(args.length > 0 ? [`--args=${JSON.stringify(args)}`] : []),
  ]
  await execa(CTR_REMOTE, ['image', 'optimize', ...workload, ...convert, `docker://${optimized}`], options)
  const sizes = await layerSizes(layout)
  return {name, layers: sizes.length, size: sizes.reduce((sum, size) => sum + size, 0), args, ready}
}

async function layerSizes(layout: string): Promise<readonly number[]> {
  const index = JSON.parse(await readFile(join(layout, 'index.json'), 'utf8')) as {
    manifests: {digest: string}[]
  }
  const path = join(layout, 'blobs', index.manifests[0]!.digest.replace(':', '/'))
  const {layers} = JSON.parse(await readFile(path, 'utf8')) as {layers: {size: number}[]}
  return layers.map(({size}) => size)
}
