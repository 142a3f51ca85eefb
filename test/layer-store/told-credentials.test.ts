import {expect, it} from 'vitest'
import {createToldCredentials, MAX_TOLD} from '../../src/lib/layer-store/told-credentials.ts'

const json = (value: unknown) => Buffer.from(JSON.stringify(value))

it('finds what was told last for a repository, and nothing for others', async () => {
  const told = createToldCredentials()
  told.tell(json({'ghcr.io/owner/app:1': {username: 'a', password: 'first'}}))
  told.tell(json({'ghcr.io/owner/app:2': {username: 'a', password: 'second'}}))
  expect(await told.find('ghcr.io', 'owner/app')).toEqual({
    kind: 'password',
    username: 'a',
    password: 'second',
  })
  expect(await told.find('ghcr.io', 'owner/other')).toBeUndefined()
  expect(await told.find('quay.io', 'owner/app')).toBeUndefined()
})

it('keeps what it knows of an image that is read without credentials', async () => {
  const told = createToldCredentials()
  told.tell(json({'ghcr.io/owner/app:1': {identityToken: 'token'}}))
  told.tell(json({'ghcr.io/owner/app:1': {}}))
  expect(await told.find('ghcr.io', 'owner/app')).toEqual({kind: 'identity', token: 'token'})
})

it('is told again what it has encoded', async () => {
  const [told, again] = [createToldCredentials(), createToldCredentials()]
  told.tell(json({'a.b/c:d': {username: 'u', password: 'p'}, 'busybox:1': {identityToken: 't'}}))
  again.tell(told.encode())
  expect(await again.find('a.b', 'c')).toEqual({kind: 'password', username: 'u', password: 'p'})
  expect(await again.find('docker.io', 'library/busybox')).toEqual({kind: 'identity', token: 't'})
})

it.each([
  ['text that is not JSON', Buffer.from('{"a": "very secret'), 'they are not JSON'],
  ['a list', Buffer.from('["very secret"]'), 'they are not a JSON object'],
  ['more than anybody has to say', Buffer.alloc(MAX_TOLD + 1, 'very secret'), 'they exceed'],
])('refuses %s without quoting it', (_, bytes, problem) => {
  const tell = () => createToldCredentials().tell(bytes)
  expect(tell).toThrow(problem)
  expect(tell).not.toThrow('secret')
})
