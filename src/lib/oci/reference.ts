// Image references `[domain/]path[:tag][@digest]`: distribution's grammar, and Docker's short names for docker.io.

import {CodedError} from '../errors/coded-error.ts'
import {type Digest, isDigest} from './digest.ts'

/** A parsed reference. `domain` and `path` are always present, with Docker's defaults filled in. */
export interface Reference {
  /** What the user wrote; for messages. */
  readonly text: string
  /** Registry domain with its port: `docker.io`, `ghcr.io`, `localhost:5000`, `[::1]:5000`. */
  readonly domain: string
  /** Repository path inside the registry: `library/debian`. */
  readonly path: string
  readonly tag?: string
  readonly digest?: Digest
}

const DEFAULT_DOMAIN = 'docker.io'
/** Docker Hub's API host; `docker.io` itself serves web pages. */
const DEFAULT_REGISTRY_HOST = 'registry-1.docker.io'
/** Repository path limit of distribution/reference (NameTotalLengthMax), in characters. */
const MAX_PATH_LENGTH = 255
/** Bound on the whole text before any pattern looks at it: a domain, a path, a tag and a digest at their longest. */
const MAX_TEXT_LENGTH = 1024

const DOMAIN_LABEL = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])'
const DOMAIN_PATTERN = new RegExp(
  `^(?:${DOMAIN_LABEL}(?:\\.${DOMAIN_LABEL})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]{1,5})?$`,
)
const PATH_COMPONENT = '[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*'
const PATH_PATTERN = new RegExp(`^${PATH_COMPONENT}(?:/${PATH_COMPONENT})*$`)
const TAG_PATTERN = /^\w[\w.-]{0,127}$/
const HEX_ID_PATTERN = /^[0-9a-f]{64}$/

/**
 * Parses a reference and fills in Docker's defaults: `debian` is `docker.io/library/debian`. A missing tag stays
 * missing (see `withDefaultTag`). Throws `invalid-argument`, saying which part is wrong.
 */
export function parseReference(text: string): Reference {
  if (text.length === 0) throw invalid(text, 'it is empty')
  if (text.length > MAX_TEXT_LENGTH) throw invalid(text, `it is longer than ${MAX_TEXT_LENGTH} characters`)
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(text)) {
    throw invalid(text, 'it is a URL; expected a name such as "registry.example.com/name:tag"')
  }
  const {name, tag, digest} = splitSuffixes(text)
  const {domain, path} = splitDomain(name)
  checkDomain(text, domain)
  checkPath(text, path)
  if (tag !== undefined && !TAG_PATTERN.test(tag)) {
    throw invalid(
      text,
      `the tag ${JSON.stringify(tag)} is not 1 to 128 letters, digits, "_", "." and "-", or starts with "." or "-"`,
    )
  }
  if (digest !== undefined && !isDigest(digest)) {
    throw invalid(text, `the digest ${JSON.stringify(digest)} is not "sha256:" and 64 lower-case hex digits`)
  }
  return {text, domain, path, ...(tag === undefined ? {} : {tag}), ...(digest === undefined ? {} : {digest})}
}

/** The canonical text: `docker.io/library/debian:12@sha256:…`. `parseReference` reads it back. */
export function formatReference(reference: Reference): string {
  const tag = reference.tag === undefined ? '' : `:${reference.tag}`
  const digest = reference.digest === undefined ? '' : `@${reference.digest}`
  return `${repositoryOf(reference)}${tag}${digest}`
}

/** The shortest text that means the same to Docker: `debian:12`, `user/app`, `ghcr.io/o/app:1`. */
export function familiarName(reference: Reference): string {
  const full = formatReference(reference)
  if (reference.domain !== DEFAULT_DOMAIN) return full
  const short = full.slice(DEFAULT_DOMAIN.length + 1)
  const official = short.startsWith('library/') && !reference.path.slice('library/'.length).includes('/')
  return official ? short.slice('library/'.length) : short
}

/** `domain/path`, the repository without tag and digest. */
export function repositoryOf(reference: Reference): string {
  return `${reference.domain}/${reference.path}`
}

/** The host (with port) that serves the registry API of a reference: `registry-1.docker.io` for `docker.io`. */
export function registryHostOf(reference: Reference): string {
  return reference.domain === DEFAULT_DOMAIN ? DEFAULT_REGISTRY_HOST : reference.domain
}

/** What a registry is asked for, by precedence: the digest, the tag, else `latest`. */
export function tagOrDigestOf(reference: Reference): string {
  return reference.digest ?? reference.tag ?? 'latest'
}

/** The reference with this tag and no digest; throws `invalid-argument`. */
export function withTag(reference: Reference, tag: string): Reference {
  return parseReference(`${repositoryOf(reference)}:${tag}`)
}

/** The reference with this digest, its tag kept. */
export function withDigest(reference: Reference, digest: Digest): Reference {
  const changed = {...reference, digest}
  return {...changed, text: formatReference(changed)}
}

/** The reference itself when it has a tag or digest, else with the tag `latest`. */
export function withDefaultTag(reference: Reference): Reference {
  return reference.tag === undefined && reference.digest === undefined
    ? {...reference, tag: 'latest'}
    : reference
}

function splitSuffixes(text: string): {name: string; tag?: string; digest?: string} {
  const at = text.indexOf('@')
  const digest = at < 0 ? undefined : text.slice(at + 1)
  const tagged = at < 0 ? text : text.slice(0, at)
  const colon = tagged.lastIndexOf(':')
  // A colon before the last slash belongs to a port: `localhost:5000/name`.
  const hasTag = colon > tagged.lastIndexOf('/')
  const name = hasTag ? tagged.slice(0, colon) : tagged
  return {
    name,
    ...(hasTag ? {tag: tagged.slice(colon + 1)} : {}),
    ...(digest === undefined ? {} : {digest}),
  }
}

/**
 * Docker's rule: what stands before the first slash is a domain when it has a dot, a colon or an upper-case letter,
 * or is `localhost`; otherwise the name lives on Docker Hub, under `library/` when it has one component.
 */
function splitDomain(name: string): {domain: string; path: string} {
  const slash = name.indexOf('/')
  const first = slash < 0 ? '' : name.slice(0, slash)
  const isDomain = slash > 0 && (/[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase())
  const written = isDomain ? first : DEFAULT_DOMAIN
  const path = isDomain ? name.slice(slash + 1) : name
  const domain = written === 'index.docker.io' ? DEFAULT_DOMAIN : written
  return {domain, path: domain === DEFAULT_DOMAIN && !path.includes('/') ? `library/${path}` : path}
}

function checkDomain(text: string, domain: string): void {
  if (!DOMAIN_PATTERN.test(domain)) {
    throw invalid(text, `${JSON.stringify(domain)} is no valid registry domain`)
  }
  const port = /:([0-9]+)$/.exec(domain.slice(domain.lastIndexOf(']') + 1))?.[1]
  if (port !== undefined && (Number(port) === 0 || Number(port) > 65_535)) {
    throw invalid(text, `${port} is no valid port`)
  }
}

function checkPath(text: string, path: string): void {
  if (path.length > MAX_PATH_LENGTH) {
    throw invalid(text, `its repository path is longer than ${MAX_PATH_LENGTH} characters`)
  }
  if (PATH_PATTERN.test(path)) {
    // Docker keeps such names for image ids, so that an id is never taken for a name.
    if (HEX_ID_PATTERN.test(path.replace(/^library\//, ''))) {
      throw invalid(text, 'a name of 64 hex digits is reserved for image ids')
    }
    return
  }
  throw invalid(
    text,
    PATH_PATTERN.test(path.toLowerCase())
      ? 'the repository name must be in lower case'
      : `${JSON.stringify(path)} is no valid repository name`,
  )
}

function invalid(text: string, problem: string): CodedError {
  const shown = text.length > 200 ? `${text.slice(0, 200)}…` : text
  return new CodedError(
    'invalid-argument',
    `Cannot parse image reference ${JSON.stringify(shown)}: ${problem}`,
  )
}
