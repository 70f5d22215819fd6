// SPDX-License-Identifier: Apache-2.0
// The stream of updates of a namespace. It connects again by itself.

import { useEffect, useRef, useState } from 'preact/hooks';
import { streamAddress, type Filter, type Update } from './protocol.ts';
import { apply, emptyState, type State } from './state.ts';

/** Between attempts when the server does not want to serve. */
const AGAIN = 3000;
/** What is typed is taken once nothing was typed for so long. */
const TYPED = 250;

export function useStream(namespace: string, filter: Filter): State {
  const [state, setState] = useState(emptyState);
  const shown = useRef(namespace);
  useEffect(() => {
    let source: EventSource | undefined;
    let timer: number | undefined;
    const connect = () => {
      let first = true;
      source = new EventSource(streamAddress(namespace, filter));
      source.onopen = () => {
        first = true;
      };
      source.onmessage = (message: MessageEvent<string>) => {
        const update = JSON.parse(message.data) as Update;
        const begins = first;
        first = false;
        const other = shown.current !== namespace;
        shown.current = namespace;
        setState((before) => apply(other ? emptyState() : before, update, begins));
      };
      source.onerror = () => {
        setState((before) => ({ ...before, problem: 'this page has lost its server and connects again' }));
        if (source?.readyState === EventSource.CLOSED) {
          void refusal(namespace, filter).then((problem) => setState((before) => ({ ...before, problem })));
          timer = window.setTimeout(connect, AGAIN);
        }
      };
    };
    timer = window.setTimeout(connect, TYPED);
    return () => {
      window.clearTimeout(timer);
      source?.close();
    };
  }, [namespace, filter]);
  return state;
}

/** Why the server does not serve; event sources keep that to themselves. */
async function refusal(namespace: string, filter: Filter): Promise<string> {
  const stop = new AbortController();
  try {
    const answer = await fetch(streamAddress(namespace, filter), { signal: stop.signal });
    return answer.ok ? 'connecting' : (await answer.text()).trim();
  } catch {
    return 'this page has lost its server and connects again';
  } finally {
    stop.abort();
  }
}

export interface Namespaces {
  names: string[];
  problem: string | null;
}

/** The namespaces that there are, asked for every now and then. */
export function useNamespaces(): Namespaces {
  const [found, setFound] = useState<Namespaces>({ names: [], problem: null });
  useEffect(() => {
    let timer: number | undefined;
    let gone = false;
    const ask = async () => {
      try {
        const answer = await fetch('/api/namespaces');
        const said = (await answer.json()) as { namespaces?: string[]; problem?: string };
        if (!gone) setFound((before) => ({ names: said.namespaces ?? before.names, problem: said.problem ?? null }));
      } catch {
        if (!gone) setFound((before) => ({ ...before, problem: 'the server does not answer' }));
      }
      if (!gone) timer = window.setTimeout(() => void ask(), 10_000);
    };
    void ask();
    return () => {
      gone = true;
      window.clearTimeout(timer);
    };
  }, []);
  return found;
}
