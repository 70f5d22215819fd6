// SPDX-License-Identifier: Apache-2.0
// The page: which namespace, its services as a graph, rates, and the flows.

import { useCallback, useEffect, useState } from 'preact/hooks';
import { Detail, type Selected } from './detail.tsx';
import { Filters } from './filters.tsx';
import { Flows } from './flows.tsx';
import { Graph } from './graph.tsx';
import { Plots } from './plots.tsx';
import { NO_FILTER, type Filter, type Flow } from './protocol.ts';
import type { State } from './state.ts';
import { useNamespaces, useStream } from './stream.ts';

/** The namespace in the address of the page; all of them if there is none. */
function named(): string {
  return decodeURIComponent(window.location.hash.replace(/^#/, ''));
}

export function App() {
  const [namespace, setNamespace] = useState(named);
  const [filter, setFilter] = useState<Filter>(NO_FILTER);
  const [selected, setSelected] = useState<Selected | null>(null);
  const state = useStream(namespace, filter);
  useEffect(() => {
    const moved = () => setNamespace(named());
    window.addEventListener('hashchange', moved);
    return () => window.removeEventListener('hashchange', moved);
  }, []);
  useEffect(() => setSelected(null), [namespace]);
  const selectVertex = useCallback((id: number | null) => setSelected(id === null ? null : { vertex: id }), []);
  const selectFlow = useCallback((flow: Flow | null) => setSelected(flow === null ? null : { flow }), []);
  const only = useCallback((pod: string) => setFilter((before) => ({ ...before, pod })), []);
  const vertex = selected !== null && 'vertex' in selected ? selected.vertex : null;
  const flow = selected !== null && 'flow' in selected ? selected.flow.id : null;
  return (
    <>
      <Header namespace={namespace} state={state} />
      <main>
        <Graph key={namespace} state={state} selected={vertex} onSelect={selectVertex} onOnly={only} />
        <aside aria-label="Rates and details">
          <Plots state={state} />
          <Detail state={state} namespace={namespace} selected={selected} onSelect={setSelected} onOnly={only} />
        </aside>
        <section class="below" aria-label="Flows">
          <Filters filter={filter} onFilter={setFilter} state={state} />
          <Flows key={`${namespace} ${JSON.stringify(filter)}`} flows={state.flows} selected={flow} onSelect={selectFlow} />
        </section>
      </main>
    </>
  );
}

function Header({ namespace, state }: { namespace: string; state: State }) {
  const namespaces = useNamespaces();
  const names = [...new Set([...namespaces.names, ...(namespace === '' ? [] : [namespace])])].sort();
  const problem = state.problem ?? namespaces.problem;
  return (
    <header>
      <h1>Hubble</h1>
      <label>
        Namespace{' '}
        <select
          id="namespace"
          value={namespace}
          onChange={(event) => {
            window.location.hash = encodeURIComponent(event.currentTarget.value);
          }}
        >
          <option value="">All namespaces</option>
          {names.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <p id="status" role="status" class={problem === null ? 'well' : 'unwell'}>
        {problem ?? 'Live'}
      </p>
      <Gaps state={state} />
    </header>
  );
}

/** What is not on this page, though it happened. */
function Gaps({ state }: { state: State }) {
  const gaps: string[] = [];
  if (state.unavailable.length > 0) gaps.push(`nodes away: ${state.unavailable.join(', ')}`);
  if (state.lost > 0) gaps.push(`${state.lost.toLocaleString()} events lost by nodes`);
  if (state.missed > 0) gaps.push(`${state.missed.toLocaleString()} flows not listed (too many for this page)`);
  if (state.leftOut > 0) gaps.push(`${state.leftOut.toLocaleString()} flows of services that do not fit into the graph`);
  return gaps.length === 0 ? null : <p id="gaps">{gaps.join(' · ')}</p>;
}
