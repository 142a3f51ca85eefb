import {expect, it} from 'vitest'
import {createMetrics} from '../../src/daemons/lazy-layers/metrics.ts'
import {serveMetrics} from '../../src/daemons/process/http-endpoints.ts'
import {openLog} from '../../src/daemons/process/log.ts'
import {ServiceState} from '../../src/daemons/process/service-state.ts'
import {freePort} from '../support/free-port.ts'

it('is ready from when it serves until it stops', async () => {
  const port = await freePort()
  const state = new ServiceState(undefined, openLog('fatal'))
  await using _ = await serveMetrics(`127.0.0.1:${port}`, createMetrics(), state)
  const ask = async () => {
    const response = await fetch(`http://127.0.0.1:${port}/readyz`)
    return [response.status, await response.text()]
  }
  expect(await ask()).toEqual([503, 'not serving\n'])
  state.ready()
  expect(await ask()).toEqual([200, 'ok\n'])
  state.stopping()
  expect(await ask()).toEqual([503, 'not serving\n'])
})
