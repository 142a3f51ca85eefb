// Lists: repositories, tags (distribution-spec, "Content discovery").

import {type Exchange, type Registry, reply} from './exchange.ts'
import {listImages, listRepository} from './image-names.ts'
import {Problem} from './problem.ts'

/** Entries of one page, at most and when the client does not say. */
const MAX_PAGE = 10_000

export async function sendCatalog(registry: Registry, exchange: Exchange): Promise<void> {
  const images = await listImages(registry.store, registry.naming)
  const repositories = [...new Set(images.map(({repository}) => repository))].sort()
  const {page, link} = paginate(exchange, repositories, '/v2/_catalog')
  replyJson(exchange, {repositories: page}, link)
}

export async function sendTags(registry: Registry, exchange: Exchange, repository: string): Promise<void> {
  const images = await listRepository(registry.store, repository, registry.naming, exchange.hints)
  if (images.length === 0) {
    throw new Problem('NAME_UNKNOWN', `There is no repository ${JSON.stringify(repository)}`)
  }
  const tags = [...new Set(images.flatMap(({tag}) => (tag === undefined ? [] : [tag])))].sort()
  const {page, link} = paginate(exchange, tags, `/v2/${repository}/tags/list`)
  replyJson(exchange, {name: repository, tags: page}, link)
}

function paginate(
  {query}: Exchange,
  sorted: readonly string[],
  path: string,
): {page: readonly string[]; link: Readonly<Record<string, string>>} {
  const count = query.get('n')
  if (count !== null && !/^\d{1,9}$/.test(count)) {
    throw new Problem('PAGINATION_NUMBER_INVALID', `${JSON.stringify(count.slice(0, 100))} is no page size`)
  }
  const size = Math.min(count === null ? MAX_PAGE : Number(count), MAX_PAGE)
  const last = query.get('last') ?? ''
  const rest = sorted.filter(name => name > last)
  const page = rest.slice(0, size)
  if (page.length === 0 || page.length === rest.length) return {page, link: {}}
  const next = new URLSearchParams({n: String(size), last: page.at(-1)!})
  return {page, link: {link: `<${path}?${next}>; rel="next"`}}
}

function replyJson(exchange: Exchange, value: unknown, headers: Readonly<Record<string, string>>): void {
  reply(exchange, 200, {'content-type': 'application/json', ...headers}, JSON.stringify(value))
}
