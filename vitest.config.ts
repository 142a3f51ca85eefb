import {availableParallelism} from 'node:os'
import {defineConfig} from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // For what hangs. What merely waits for a loaded machine may.
    testTimeout: 240_000,
    hookTimeout: 300_000,
    pool: 'forks',
    // Vitest leaves a core free, half of those that CI has; and much of the suite waits for other processes.
    maxWorkers: availableParallelism(),
  },
})
