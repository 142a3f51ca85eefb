import {describe, expect, test} from 'vitest'
import {mergeScopes, parseChallenges} from '../../src/lib/registry/challenge.ts'

function check(header: string, ...expected: [scheme: string, params: Record<string, string>][]): void {
  const parsed = parseChallenges([header]).map(({scheme, params}) => [scheme, {...params}])
  expect(parsed).toEqual(expected)
}

describe('challenges', () => {
  test('a bearer challenge is parsed', () =>
    check('Bearer realm="https://auth.example/token",service="registry.example"', [
      'bearer',
      {realm: 'https://auth.example/token', service: 'registry.example'},
    ]))
  test('commas inside quotes belong to the value', () =>
    check('Bearer realm="r",scope="repository:a:pull,push"', [
      'bearer',
      {realm: 'r', scope: 'repository:a:pull,push'},
    ]))
  test('quotes inside quotes are unescaped', () =>
    check('Basic realm="a \\"b\\" \\\\c"', ['basic', {realm: 'a "b" \\c'}]))
  test('values need no quotes', () =>
    check('Bearer realm=r, service=s', ['bearer', {realm: 'r', service: 's'}]))
  test('names are case-insensitive, and spaces do not matter', () =>
    check('BEARER  Realm = "r" ,  SERVICE="s"', ['bearer', {realm: 'r', service: 's'}]))
  test('one header may hold several challenges', () =>
    check(
      'Basic realm="b", Bearer realm="t",service="s"',
      ['basic', {realm: 'b'}],
      ['bearer', {realm: 't', service: 's'}],
    ))
  test('a scheme may stand alone', () =>
    check('Negotiate, Basic realm="r"', ['negotiate', {}], ['basic', {realm: 'r'}]))
  test('the first of two equal parameters counts', () =>
    check('Basic realm="a",realm="b"', ['basic', {realm: 'a'}]))
  test('an empty header is no challenge', () => check(''))
  test('parameters without a scheme are skipped', () => check('realm="r"'))
  test('an unfinished quote does not hang', () => {
    expect(parseChallenges([`Bearer realm="${'\\'.repeat(20_000)}`])).not.toHaveLength(0)
  })
  test('parameters named like parts of objects are harmless', () => {
    expect(parseChallenges(['Basic __proto__="x",constructor="y"'])[0]?.params.realm).toBeUndefined()
  })
})

test.each([
  [['repository:a:pull', 'repository:a:push'], ['repository:a:pull,push']],
  [
    ['repository:b:pull', 'repository:a:push,pull'],
    ['repository:a:pull,push', 'repository:b:pull'],
  ],
  [['repository:a:pull repository:b:pull'], ['repository:a:pull', 'repository:b:pull']],
  [['repository:host:5000/a:pull'], ['repository:host:5000/a:pull']],
  [[], []],
])('the scopes %j are %j', (scopes, merged) => {
  expect(mergeScopes(scopes)).toEqual(merged)
})
