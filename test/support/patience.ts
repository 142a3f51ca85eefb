// How long a test waits for what comes in its own time.

/** For `vi.waitFor`, `vi.waitUntil` and `expect.poll`, whose own second is too short on a loaded machine. */
export const PATIENTLY = {timeout: 120_000}
