// WWW-Authenticate challenges (RFC 9110, 11.6.1) and the scopes of registry tokens (distribution token spec).

/** One challenge: the scheme in lower case, and its parameters with their names in lower case. */
export interface Challenge {
  readonly scheme: string
  readonly params: Readonly<Record<string, string>>
}

/** Longest header that is looked at, characters; undici bounds all headers together to 16 KiB. */
const MAX_HEADER_LENGTH = 16 * 1024

/**
 * Parses header values that each hold one or more challenges. Commas separate parameters as well as challenges, and
 * may stand inside quoted values; what makes no sense is skipped.
 */
export function parseChallenges(headers: readonly string[]): Challenge[] {
  return headers.flatMap(header => parseHeader(header.slice(0, MAX_HEADER_LENGTH)))
}

function parseHeader(header: string): Challenge[] {
  const challenges: {scheme: string; params: Record<string, string>}[] = []
  // A parameter (`name=value` or `name="quoted value"`), or else a word: the next challenge's scheme.
  const token = /([\w!#$%&'*+.^`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?/g
  for (const [, name, quoted, plain] of header.matchAll(token)) {
    const value = quoted?.replace(/\\(.)/g, '$1') ?? plain
    if (value === undefined) {
      challenges.push({scheme: name!.toLowerCase(), params: Object.create(null)})
    } else {
      const current = challenges.at(-1)
      if (current) current.params[name!.toLowerCase()] ??= value
    }
  }
  return challenges
}

/**
 * Merges scopes `type:name:actions` so that each resource appears once with all its actions, in a fixed order: one
 * set of rights has one spelling, and so one cached token.
 */
export function mergeScopes(scopes: readonly string[]): string[] {
  const actionsOf = new Map<string, Set<string>>()
  for (const scope of scopes.flatMap(text => text.split(' ')).filter(Boolean)) {
    const colon = scope.lastIndexOf(':')
    const resource = colon < 0 ? scope : scope.slice(0, colon)
    const actions = actionsOf.get(resource) ?? new Set()
    if (colon >= 0) for (const action of scope.slice(colon + 1).split(',')) actions.add(action)
    actionsOf.set(resource, actions)
  }
  return [...actionsOf]
    .map(([resource, actions]) =>
      actions.size > 0 ? `${resource}:${[...actions].sort().join(',')}` : resource,
    )
    .sort()
}
