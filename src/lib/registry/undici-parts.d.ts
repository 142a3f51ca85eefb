// Types of the parts of undici that http.ts and connect.ts load by themselves.

declare module 'undici/lib/core/connect.js' {
  export {buildConnector as default} from 'undici'
}

declare module 'undici/lib/dispatcher/agent.js' {
  export {Agent as default} from 'undici'
}

declare module 'undici/lib/dispatcher/dispatcher.js' {
  export {Dispatcher as default} from 'undici'
}

declare module 'undici/lib/dispatcher/proxy-agent.js' {
  export {ProxyAgent as default} from 'undici'
}

declare module 'undici/lib/api/index.js' {
  import type {Dispatcher} from 'undici'

  const api: Pick<Dispatcher, 'connect' | 'pipeline' | 'request' | 'stream' | 'upgrade'>
  export default api
}
