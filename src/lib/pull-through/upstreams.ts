// Which registries stand behind this one, and which of them, and which repository, a client's name means.

import {CodedError} from '../errors/coded-error.ts'
import {parseReference, type Reference, repositoryOf} from '../oci/reference.ts'
import {Problem} from '../registry-server/problem.ts'

/** A registry whose images can be pulled here. */
export interface Upstream {
  /** What stands before the repository in a client's name: `docker.io`, or a short name. */
  readonly name: string
  /** The domain by which it is known: `docker.io`, `127.0.0.1:5000`. */
  readonly domain: string
}

/** Where images come from: registries by name, the first of which is meant where a client names none. */
export interface Upstreams {
  readonly named: readonly Upstream[]
  /** Whether a client may name any other registry. Nobody's credentials go there. */
  readonly any: boolean
}

/** A repository of an upstream, as a client asks for it. */
export interface SourceRepository {
  /** What the client calls it. */
  readonly asked: string
  readonly reference: Reference
  /** What we call its registry. */
  readonly upstream: string
  /** `docker.io/library/debian`: what it is, whatever the client calls it. */
  readonly name: string
  /** Whether a client's credentials are for this registry too. */
  readonly mayAuthenticate: boolean
}

/** Stands for every registry in `--upstream`. */
const ANY = '*'
const SHORT_NAME = /^[a-z0-9]+(?:[._-][a-z0-9]+)*$/
/** What a repository's first component must look like to be a domain, which cannot have a port there. */
const DOMAIN_IN_PATH = /^(?:localhost|.*\..*)$/

/** Parses what `--upstream` says: `DOMAIN`, `NAME=DOMAIN`, or `*`. Throws `invalid-argument`. */
export function parseUpstreams(texts: readonly string[]): Upstreams {
  const named = texts.filter(text => text !== ANY).map(parseUpstream)
  const names = named.map(({name}) => name)
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined) throw invalid(twice, 'it is named twice')
  return {named, any: texts.includes(ANY)}
}

function parseUpstream(text: string): Upstream {
  const equals = text.indexOf('=')
  const name = text.slice(0, Math.max(equals, 0))
  const domain = text.slice(equals + 1)
  if (equals >= 0 && !SHORT_NAME.test(name)) {
    throw invalid(text, 'before "=" stands a short name of small letters and digits')
  }
  try {
    if (parseReference(`${domain}/a/b`).domain === domain) return {name: equals < 0 ? domain : name, domain}
  } catch {
    // It is no domain at all.
  }
  throw invalid(text, 'it is no registry, such as "docker.io" or "hub=registry.example.com:5000"')
}

function invalid(text: string, problem: string): CodedError {
  return new CodedError('invalid-argument', `Cannot use the upstream ${JSON.stringify(text)}: ${problem}`)
}

/**
 * The repository that a client means: the registry is what containerd says that we are a mirror of, else the first
 * component of the path, else the first upstream. Throws a `Problem` where it may not be asked.
 */
export function findSource(
  upstreams: Upstreams,
  asked: string,
  mirrored: string | undefined,
): SourceRepository {
  const slash = asked.indexOf('/')
  const first = asked.slice(0, Math.max(slash, 0))
  const byMirror = mirrored === undefined ? undefined : knownAs(upstreams, mirrored)
  if (byMirror) return sourceOf(asked, byMirror, asked, true)
  const byPath = knownAs(upstreams, first)
  if (byPath) return sourceOf(asked, byPath, asked.slice(slash + 1), true)
  if (upstreams.any && mirrored !== undefined) return sourceOf(asked, unnamed(mirrored), asked, false)
  const isDomain = DOMAIN_IN_PATH.test(first)
  if (upstreams.any && isDomain) return sourceOf(asked, unnamed(first), asked.slice(slash + 1), false)
  const [main] = upstreams.named
  if (main && mirrored === undefined && !isDomain) return sourceOf(asked, main, asked, true)
  throw new Problem(
    'NAME_UNKNOWN',
    `This registry does not stand before ${JSON.stringify(mirrored ?? first)}; it does before ${
      upstreams.named.map(({name}) => name).join(', ') || 'those whose name has a dot'
    }`,
  )
}

function knownAs({named}: Upstreams, text: string): Upstream | undefined {
  return named.find(({name}) => name === text) ?? named.find(({domain}) => domain === text)
}

function unnamed(domain: string): Upstream {
  return {name: domain, domain}
}

function sourceOf(
  asked: string,
  {name: upstream, domain}: Upstream,
  path: string,
  mayAuthenticate: boolean,
): SourceRepository {
  try {
    const reference = parseReference(`${domain}/${path}`)
    return {asked, reference, upstream, name: repositoryOf(reference), mayAuthenticate}
  } catch {
    throw new Problem('NAME_INVALID', `${JSON.stringify(asked)} names no repository of ${domain}`)
  }
}
