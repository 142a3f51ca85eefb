// Platforms `os/arch[/variant]` (image-spec image-index.md), normalised and matched as containerd does.

import {CodedError} from '../errors/coded-error.ts'

export interface Platform {
  readonly os: string
  readonly architecture: string
  readonly variant?: string
  readonly 'os.version'?: string
}

const ARCHITECTURE_ALIASES: Readonly<Record<string, {architecture: string; variant?: string}>> = {
  x86_64: {architecture: 'amd64'},
  'x86-64': {architecture: 'amd64'},
  i386: {architecture: '386'},
  aarch64: {architecture: 'arm64'},
  armhf: {architecture: 'arm', variant: 'v7'},
  armel: {architecture: 'arm', variant: 'v6'},
}

/** Parses `os/arch`, `os/arch/variant`, or a bare architecture (then linux); throws `invalid-argument`. */
export function parsePlatform(text: string): Platform {
  const parts = text.trim().toLowerCase().split('/')
  const valid = parts.length >= 1 && parts.length <= 3 && parts.every(part => /^[a-z0-9_.()-]+$/.test(part))
  if (!valid) {
    throw new CodedError(
      'invalid-argument',
      `Cannot parse platform ${JSON.stringify(text)}: expected "os/architecture[/variant]"`,
    )
  }
  if (parts.length === 1) {
    const only = parts[0]!
    if (only === 'linux' || only === 'windows' || only === 'darwin' || only === 'freebsd') {
      return {os: only, architecture: hostArchitecture()}
    }
    return normalizePlatform({os: 'linux', architecture: only})
  }
  const [os, architecture, variant] = parts
  return normalizePlatform({os: os!, architecture: architecture!, ...(variant ? {variant} : {})})
}

/** Resolves architecture aliases, and drops variants that are the architecture's default (arm64/v8, amd64/v1). */
export function normalizePlatform(platform: Platform): Platform {
  const alias = ARCHITECTURE_ALIASES[platform.architecture]
  const architecture = alias?.architecture ?? platform.architecture
  let variant = platform.variant || alias?.variant
  if (architecture === 'arm64' && (variant === 'v8' || variant === '8')) variant = undefined
  if (architecture === 'amd64' && variant === 'v1') variant = undefined
  if (architecture === 'arm') variant = variant ? (variant.startsWith('v') ? variant : `v${variant}`) : 'v7'
  const version = platform['os.version']
  return {
    os: platform.os || 'linux',
    architecture,
    ...(variant ? {variant} : {}),
    ...(version ? {'os.version': version} : {}),
  }
}

/** True when an image for `offered` is exactly what `wanted` names (containerd's strict matcher). */
export function matchesPlatform(wanted: Platform, offered: Platform): boolean {
  const a = normalizePlatform(wanted)
  const b = normalizePlatform(offered)
  return a.os === b.os && a.architecture === b.architecture && (a.variant ?? '') === (b.variant ?? '')
}

export function formatPlatform(platform: Platform): string {
  return [platform.os, platform.architecture, platform.variant].filter(Boolean).join('/')
}

/** The platform of this machine, as images spell it. */
export function hostPlatform(): Platform {
  return normalizePlatform({os: 'linux', architecture: hostArchitecture()})
}

function hostArchitecture(): string {
  const names: Readonly<Record<string, string>> = {
    x64: 'amd64',
    ia32: '386',
    ppc64: 'ppc64le',
    mipsel: 'mipsle',
  }
  return names[process.arch] ?? process.arch
}
