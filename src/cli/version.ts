// The version of this package, put in by the build.

declare const PACKAGE_VERSION: string

export function packageVersion(): string {
  return PACKAGE_VERSION
}

/** What `ctr-remote --version` prints. */
export function versionLine(): string {
  return `ctr-remote ${packageVersion()}`
}
