// One request to a converting registry: who asks, whom to ask, which kind of answer.

import {OCI_INDEX} from '../oci/media-type.ts'
import type {Answer} from '../registry-server/answer-request.ts'
import {type Exchange, reply} from '../registry-server/exchange.ts'
import {Problem} from '../registry-server/problem.ts'
import {parseRoute, type Route} from '../registry-server/route.ts'
import {answerBlob} from './answer-blob.ts'
import {answerManifest} from './answer-manifest.ts'
import type {Client} from './client.ts'
import {forward} from './forward.ts'
import {checkAccess, type Pull, type PullThrough} from './pull-through.ts'
import {challengeFor, sendToken, TOKEN_PATH} from './token-endpoint.ts'
import {upstreamProblem} from './upstream-answer.ts'
import {findSource} from './upstreams.ts'
import {answerWebhook, WEBHOOK_PATH} from './webhooks.ts'

/** Answers from upstreams, and from what was converted of them. */
export function answerPullThrough(through: PullThrough): Answer {
  return async (exchange, path) => {
    if (path === TOKEN_PATH) return sendToken(through.tokens, exchange)
    if (path === WEBHOOK_PATH) return answerWebhook(through, exchange)
    const route = path === undefined ? undefined : parseRoute(path)
    if (!route) throw new Problem('NAME_UNKNOWN', 'There is no such path in the distribution API')
    const client = authenticate(through, exchange)
    if (route.kind === 'base') return answerBase(through, exchange)
    if (route.kind === 'catalog') {
      throw new Problem(
        'UNSUPPORTED',
        'This registry does not list the repositories of those that it stands before',
      )
    }
    checkMethod(exchange, route.repository)
    await answerRoute(through, client, exchange, route)
  }
}

function authenticate({tokens, publicUrl}: PullThrough, exchange: Exchange): Client {
  try {
    return tokens.authenticate(exchange.request.headers.authorization)
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    throw new Problem(error.code, error.message, challengeFor(exchange, publicUrl, {error: 'invalid_token'}))
  }
}

/** Clients ask this before anything else, and take the way to log in, which is also that of nobody, from the answer. */
function answerBase({publicUrl}: PullThrough, exchange: Exchange): void {
  if (exchange.request.headers.authorization === undefined) {
    throw new Problem(
      'UNAUTHORIZED',
      'Ask for a token, with or without credentials',
      challengeFor(exchange, publicUrl, {}),
    )
  }
  reply(exchange, 200, {'content-type': 'application/json'}, '{}')
}

function checkMethod({method}: Exchange, repository: string): void {
  if (method === 'GET' || method === 'HEAD') return
  throw new Problem(
    'UNSUPPORTED',
    `Nothing can be pushed to ${JSON.stringify(repository)} here: this registry converts what others have; push to them`,
    {allow: 'GET, HEAD'},
  )
}

type RepositoryRoute = Exclude<Route, {kind: 'base' | 'catalog'}>

async function answerRoute(
  through: PullThrough,
  client: Client,
  exchange: Exchange,
  route: RepositoryRoute,
): Promise<void> {
  const source = findSource(through.upstreams, route.repository, exchange.hints.mirrored)
  await using opened = through.sessions.open(client, source)
  const pull = {client, source, repository: opened.repository}
  try {
    await answerPull(through, pull, exchange, route)
  } catch (error) {
    exchange.signal.throwIfAborted()
    const problem = upstreamProblem(error)
    if (!(problem instanceof Problem) || problem.code !== 'UNAUTHORIZED') throw problem
    const challenge = challengeFor(exchange, through.publicUrl, {
      repository: route.repository,
      ...(client.credential ? {error: 'insufficient_scope'} : {}),
    })
    throw new Problem(problem.code, problem.message, challenge)
  }
}

async function answerPull(
  through: PullThrough,
  pull: Pull,
  exchange: Exchange,
  route: RepositoryRoute,
): Promise<void> {
  switch (route.kind) {
    case 'manifest':
      return answerManifest(through, pull, exchange, route.reference)
    case 'blob':
      return answerBlob(through, pull, exchange, route.digest)
    case 'tags':
      return forward(pull, exchange, 'tags/list')
    case 'referrers': {
      const ours = through.images
        .withContent(pull.source.name, route.digest)
        .filter(({descriptor}) => descriptor.digest === route.digest)
      if (ours.length === 0) return forward(pull, exchange, `referrers/${route.digest}`)
      await checkAccess(through, pull, ours)
      // What refers to the source vouches for other bytes.
      const none = JSON.stringify({schemaVersion: 2, mediaType: OCI_INDEX, manifests: []})
      return reply(exchange, 200, {'content-type': OCI_INDEX}, none)
    }
    case 'upload':
    case 'uploads':
      throw new Problem('UNSUPPORTED', 'There are no uploads here')
  }
}
