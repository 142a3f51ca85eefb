// The version of this package: put in by the build, read from package.json when running from source.

import {readFileSync} from 'node:fs'

declare const PACKAGE_VERSION: string | undefined

export function packageVersion(): string {
  if (typeof PACKAGE_VERSION === 'string') return PACKAGE_VERSION
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')
  return String(JSON.parse(text).version)
}
