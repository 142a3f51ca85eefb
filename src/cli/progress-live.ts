// A live list of what is being worked on, drawn by listr2 on stderr: one line per item, with bytes and rate.

import {DefaultRenderer, Listr, ListrLogger, ProcessOutput} from 'listr2'
import type {ProgressEvent} from '../lib/io/progress.ts'
import {describeProgress} from './progress-line.ts'
import type {ProgressView} from './progress-view.ts'

/** Items reported within this time of the first one share a list, milliseconds. */
const GATHER_MS = 30
/** A line is redrawn at most this often, milliseconds. */
const REDRAW_MS = 100

/** listr2 asks whether stdout is a terminal; it is stderr that counts here, and the caller has looked. */
class StderrRenderer extends DefaultRenderer {
  static override nonTTY = true
}

/** One line of the list. */
interface Item {
  event: ProgressEvent
  startedAt: number | undefined
  drawnAt: number
  draw: (title: string) => void
  /** Ends the line: as done, or as stopped when there is an error. */
  end: (error?: Error) => void
  readonly ended: Promise<void>
}

/** A view that owns the lower part of the terminal until it is disposed. */
export function openLiveProgress(): ProgressView {
  const items = new Map<string, Item>()
  let gathering: Item[] = []
  let shown: Promise<unknown> = Promise.resolve()

  /** Lists follow each other: items that come late get a list of their own once the one before has ended. */
  function showGathered(): void {
    const batch = gathering
    gathering = []
    if (batch.length > 0) shown = shown.then(() => runList(batch))
  }

  return {
    sink: event => {
      const known = items.get(event.id)
      const item = known ?? createItem(event)
      if (!known) {
        items.set(event.id, item)
        if (gathering.push(item) === 1) setTimeout(showGathered, GATHER_MS)
      }
      update(item, event)
    },
    [Symbol.asyncDispose]: async () => {
      showGathered()
      for (const item of items.values()) item.end(new Error('stopped'))
      await shown
    },
  }
}

function createItem(event: ProgressEvent): Item {
  const {promise, resolve, reject} = Promise.withResolvers<void>()
  // A line that has not been drawn yet has nobody to hear that it was stopped.
  promise.catch(() => {})
  return {
    event,
    startedAt: undefined,
    drawnAt: 0,
    draw: () => {},
    end: error => (error ? reject(error) : resolve()),
    ended: promise,
  }
}

function update(item: Item, event: ProgressEvent): void {
  const now = performance.now()
  item.event = event
  if (event.phase !== 'waiting') item.startedAt ??= now
  const over = event.phase === 'done' || event.phase === 'skipped'
  if (over || now - item.drawnAt >= REDRAW_MS) {
    item.drawnAt = now
    item.draw(titleOf(item))
  }
  if (over) item.end()
}

function titleOf({event, startedAt}: Item): string {
  return describeProgress(event, startedAt === undefined ? 0 : performance.now() - startedAt)
}

async function runList(batch: readonly Item[]): Promise<void> {
  const list = new Listr(
    batch.map(item => ({
      title: titleOf(item),
      task: async (_, task) => {
        item.draw = title => {
          task.title = title
        }
        await item.ended
      },
    })),
    {
      concurrent: true,
      exitOnError: false,
      registerSignalListeners: false,
      renderer: StderrRenderer,
      rendererOptions: {
        collapseErrors: false,
        showErrorMessage: false,
        logger: new ListrLogger({
          useIcons: true,
          toStderr: [],
          processOutput: new ProcessOutput(process.stderr, process.stderr),
        }),
      },
    },
  )
  await list.run()
}
