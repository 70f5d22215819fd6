// SPDX-License-Identifier: Apache-2.0
// What is selected: a service with whom it talks to, or a flow with what decided it, and the policy that is missing.

import { useEffect, useRef, useState } from 'preact/hooks';
import { clock } from './flows.tsx';
import type { Edge, Flow, Vertex } from './protocol.ts';
import { CLASS_TEXT, edgeKey, edgeState, placeText, ruleText, serviceText, type State } from './state.ts';

export type Selected = { vertex: number } | { flow: Flow };

interface Given {
  state: State;
  namespace: string;
  selected: Selected | null;
  onSelect: (selected: Selected | null) => void;
  onOnly: (pod: string) => void;
}

export function Detail({ state, namespace, selected, onSelect, onOnly }: Given) {
  if (selected === null) return <Legend />;
  const close = (
    <button type="button" class="close" aria-label="Close" onClick={() => onSelect(null)}>
      ✕
    </button>
  );
  if ('flow' in selected) {
    return (
      <section id="detail" class="detail" aria-label="Selected flow">
        {close}
        <FlowDetail flow={selected.flow} namespace={namespace} />
      </section>
    );
  }
  const vertex = state.vertices.get(selected.vertex);
  if (vertex === undefined) return <Legend />;
  return (
    <section id="detail" class="detail" aria-label="Selected service">
      {close}
      <VertexDetail vertex={vertex} state={state} namespace={namespace} onSelect={onSelect} onOnly={onOnly} />
    </section>
  );
}

function Legend() {
  return (
    <section class="detail legend" aria-label="Legend">
      <p>
        <i class="line allowed" /> allowed
      </p>
      <p>
        <i class="line denied" /> ✕ denied by policy
      </p>
      <p>
        <i class="line mixed" /> ✕ some allowed, some denied
      </p>
      <p>
        <i class="line dropped" /> ▽ dropped for another reason
      </p>
      <p class="hint">Select a service or a flow to see what decided it. In the graph, arrow keys go from one service to the next.</p>
    </section>
  );
}

export function vertexText(vertex: Vertex): string {
  return vertex.kind === 'workload' ? `${vertex.namespace}/${vertex.name}` : vertex.name;
}

interface VertexGiven {
  vertex: Vertex;
  state: State;
  namespace: string;
  onSelect: (selected: Selected | null) => void;
  onOnly: (pod: string) => void;
}

function VertexDetail({ vertex, state, namespace, onSelect, onOnly }: VertexGiven) {
  const edges = [...state.edges.values()].filter((edge) => edge.from === vertex.id || edge.to === vertex.id);
  return (
    <>
      <h2>{vertexText(vertex)}</h2>
      {vertex.services.length > 0 && <p>Services: {vertex.services.join(', ')}</p>}
      <button type="button" id="only" onClick={() => onOnly(vertex.kind === 'workload' ? `${vertex.namespace}/${vertex.name}` : vertex.name)}>
        Only its flows
      </button>
      <ul class="edges">
        {edges.slice(0, 100).map((edge) => (
          <EdgeLine key={edgeKey(edge)} edge={edge} of={vertex.id} state={state} namespace={namespace} onSelect={onSelect} />
        ))}
      </ul>
      {edges.length > 100 && <p>and {edges.length - 100} more</p>}
      <details>
        <summary>Labels</summary>
        <ul>
          {vertex.labels.map((label) => (
            <li key={label}>{label}</li>
          ))}
        </ul>
      </details>
    </>
  );
}

interface EdgeGiven {
  edge: Edge;
  of: number;
  state: State;
  namespace: string;
  onSelect: (selected: Selected) => void;
}

function EdgeLine({ edge, of, state, namespace, onSelect }: EdgeGiven) {
  const out = edge.from === of;
  const other = state.vertices.get(out ? edge.to : edge.from);
  const now = edgeState(edge, state.now);
  const counts = [
    edge.allowed.flows > 0 ? `${edge.allowed.flows.toLocaleString()} allowed` : '',
    edge.denied.flows > 0 ? `${edge.denied.flows.toLocaleString()} denied` : '',
    edge.dropped.flows > 0 ? `${edge.dropped.flows.toLocaleString()} dropped` : '',
  ].filter(Boolean);
  const missing = now !== 'allowed' && edge.proposal !== null;
  return (
    <li class={now}>
      <button type="button" class="link" onClick={() => other !== undefined && onSelect({ vertex: other.id })}>
        {out ? '→' : '←'} {other === undefined ? 'unknown' : vertexText(other)}
      </button>{' '}
      <span>{edge.ports.map(serviceText).join(', ')}</span>
      <br />
      <small>
        {counts.join(', ')}
        {now !== 'allowed' && edge.reason !== '' && ` · ${edge.rules.length > 0 ? `denied by ${edge.rules.join(', ')}` : missing ? 'no rule allows it' : edge.reason}`}
      </small>
      {missing && edge.proposal !== null && <Proposal namespace={namespace} id={edge.proposal} />}
    </li>
  );
}

function FlowDetail({ flow, namespace }: { flow: Flow; namespace: string }) {
  const end = (place: Flow['source']) => [placeText(place), place.ip, place.port === null ? '' : `port ${place.port}`].filter(Boolean).join(', ');
  const rule = ruleText(flow);
  const lines: [string, string][] = [
    ['Time', clock(flow.time)],
    ['From', end(flow.source)],
    ['To', end(flow.destination)],
    ['Protocol', `${serviceText(flow)}${flow.reply ? ', a reply' : ''}`],
    ['Direction', flow.direction],
    ['Node', flow.node],
    ['Request', flow.request],
    ['Reason', flow.reason],
  ];
  return (
    <>
      <h2 class={flow.class}>{CLASS_TEXT[flow.class]}</h2>
      {rule !== '' && <p id="rule">{rule}</p>}
      {flow.proposal !== null && <Proposal namespace={namespace} id={flow.proposal} />}
      <dl>
        {lines
          .filter(([, value]) => value !== '')
          .map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
      </dl>
    </>
  );
}

/** The policy that would have allowed it, to copy. */
function Proposal({ namespace, id }: { namespace: string; id: number }) {
  const [text, setText] = useState<string | null>(null);
  const [said, setSaid] = useState('Copy');
  const shown = useRef<HTMLPreElement>(null);
  useEffect(() => {
    let gone = false;
    setText(null);
    setSaid('Copy');
    fetch(`/api/proposal?${new URLSearchParams({ namespace, id: String(id) })}`)
      .then(async (answer) => {
        const found = await answer.text();
        if (!gone) setText(answer.ok ? found : null);
      })
      .catch(() => undefined);
    return () => {
      gone = true;
    };
  }, [namespace, id]);
  if (text === null) return null;
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setSaid('Copied');
    } catch {
      // Without a clipboard it is selected, to be copied by hand.
      if (shown.current !== null) window.getSelection()?.selectAllChildren(shown.current);
      setSaid('Selected');
    }
  };
  return (
    <details class="proposal" open>
      <summary>A policy that would allow it</summary>
      <button type="button" class="copy" onClick={() => void copy()}>
        {said}
      </button>
      <pre ref={shown} tabIndex={0}>
        {text}
      </pre>
    </details>
  );
}
