import {expect, it} from 'vitest'
import {encodeReferenceName, parseReferenceName} from '../../src/lib/layer-store/reference-name.ts'

it.each([
  'docker.io/library/python:3.12',
  'localhost:5000/a/b:c',
  `ghcr.io/owner/app@sha256:${'ab'.repeat(32)}`,
])('finds the reference again in the name that Podman gives it: %s', reference => {
  expect(encodeReferenceName(reference)).toBe(Buffer.from(reference).toString('base64'))
  expect(parseReferenceName(encodeReferenceName(reference))).toBe(reference)
})

it.each([
  ['text that is not base64', 'docker.io'],
  ['base64 without padding', Buffer.from('a/b:cc').toString('base64').replace(/=+$/, '').slice(0, 7)],
  ['base64 of what is no reference', Buffer.from('Not A Reference').toString('base64')],
  ['base64 of bytes that are no text', Buffer.from([0xff, 0xfe, 0xfd]).toString('base64')],
  ['a name longer than any file has', Buffer.from('a'.repeat(300)).toString('base64')],
  ['nothing', ''],
])('takes no name that is none: %s', (_, name) => {
  expect(parseReferenceName(name)).toBeUndefined()
})
