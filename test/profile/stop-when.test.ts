import {describe, expect, it} from 'vitest'
import {type StopConditions, stopWhen} from '../../src/lib/profile/stop-when.ts'

const FOREVER = {periodSeconds: 1_000_000}
const PENDING = Symbol('pending')

async function reasonAfter(conditions: StopConditions, ...pieces: readonly (string | Uint8Array)[]) {
  using stop = stopWhen(conditions)
  for (const piece of pieces) stop.onStdout(Buffer.from(piece))
  return Promise.race([stop.reason, Promise.resolve(PENDING)])
}

describe('a workload has run long enough', () => {
  const check = (name: string, wanted: string, pieces: readonly (string | Uint8Array)[], expected: unknown) =>
    it(name, async () =>
      expect(await reasonAfter({...FOREVER, waitOnLine: wanted}, ...pieces)).toBe(expected),
    )

  check('when it prints a line that contains the text', 'ready', ['now ready!\n'], 'line')
  check('when the text comes in pieces', 'ready', ['now re', 'a', 'dy'], 'line')
  check('when a character comes in pieces', '日', [Uint8Array.of(0xe6, 0x97), Uint8Array.of(0xa5)], 'line')
  check(
    'when the line is longer than any buffer',
    'ready',
    ['x'.repeat(200_000), 'rea', 'x'.repeat(70_000), 'ready'],
    'line',
  )
  check('not when a line only starts with the text', 'ready', ['rea\n', 'dy\n'], PENDING)
  check('not when it prints nothing', 'ready', [], PENDING)

  it('when its period is over', async () => {
    using stop = stopWhen({periodSeconds: 0})
    expect(await stop.reason).toBe('period')
  })

  it('when it is told to stop, and then the period does not count', async () => {
    const controller = new AbortController()
    using stop = stopWhen({periodSeconds: 0, stopSignal: controller.signal})
    controller.abort()
    expect(await stop.reason).toBe('signal')
  })

  it('when profiling is aborted, also before it started', async () => {
    expect(await reasonAfter({...FOREVER, signal: AbortSignal.abort()})).toBe('aborted')
  })
})
