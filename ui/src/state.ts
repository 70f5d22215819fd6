// SPDX-License-Identifier: Apache-2.0
// What the page knows of a namespace, made of the server's updates. Bounded: the oldest flows and seconds go.

import type { Class, Edge, Flow, Second, Update, Vertex } from './protocol.ts';

/** How many flows the table holds, and seconds the plots. */
export const ROWS = 2000;
export const SECONDS = 600;
/** For so long after the last refused flow an edge counts as denied, in milliseconds. */
export const RECENT = 60_000;

export interface State {
  now: number;
  problem: string | null;
  unavailable: string[];
  lost: number;
  missed: number;
  leftOut: number;
  vertices: Map<number, Vertex>;
  edges: Map<string, Edge>;
  /** The newest first. */
  flows: Flow[];
  rates: Map<number, Second>;
  /** Counts changes of what is drawn, not of how much. */
  shape: number;
}

export function emptyState(): State {
  return {
    now: 0,
    problem: 'connecting',
    unavailable: [],
    lost: 0,
    missed: 0,
    leftOut: 0,
    vertices: new Map(),
    edges: new Map(),
    flows: [],
    rates: new Map(),
    shape: 0,
  };
}

export function edgeKey(edge: { from: number; to: number }): string {
  return `${edge.from}-${edge.to}`;
}

/** Takes an update in. With `first`, flows from before do not count any more. */
export function apply(state: State, update: Update, first: boolean): State {
  const vertices = update.reset ? new Map<number, Vertex>() : state.vertices;
  const edges = update.reset ? new Map<string, Edge>() : state.edges;
  let shape = update.reset ? state.shape + 1 : state.shape;
  for (const vertex of update.vertices) {
    if (!vertices.has(vertex.id)) shape += 1;
    vertices.set(vertex.id, vertex);
  }
  for (const edge of update.edges) {
    const key = edgeKey(edge);
    if (!edges.has(key)) shape += 1;
    edges.set(key, edge);
  }
  const before = first ? [] : state.flows;
  const flows = update.flows.length === 0 ? before : [...update.flows].reverse().concat(before).slice(0, ROWS);
  return {
    now: update.now,
    problem: update.problem,
    unavailable: update.unavailable,
    lost: update.lost,
    missed: update.missed,
    leftOut: update.left_out.vertices + update.left_out.edges,
    vertices,
    edges,
    flows,
    rates: takeRates(update.reset ? new Map() : state.rates, update),
    shape,
  };
}

function takeRates(rates: Map<number, Second>, update: Update): Map<number, Second> {
  for (const second of update.rates) rates.set(second.time, second);
  const oldest = Math.floor(update.now / 1000) - SECONDS;
  for (const time of rates.keys()) {
    if (time < oldest) rates.delete(time);
  }
  return rates;
}

export type EdgeState = 'allowed' | 'denied' | 'mixed' | 'dropped';

/** How an edge is at a time: what is allowed and denied at once, such as on two ports, is mixed. */
export function edgeState(edge: Edge, now: number): EdgeState {
  const denied = edge.denied.flows > 0 && now - edge.denied.last < RECENT;
  const dropped = edge.dropped.flows > 0 && now - edge.dropped.last < RECENT;
  const allowed = edge.allowed.flows > 0 && now - edge.allowed.last < RECENT;
  if (denied) return allowed ? 'mixed' : 'denied';
  if (dropped) return allowed ? 'mixed' : 'dropped';
  if (edge.allowed.flows > 0) return 'allowed';
  return edge.denied.flows > 0 ? 'denied' : 'dropped';
}

/** Series for the plots: seconds up to now, the last of which may still grow and is left out. */
export function series(rates: Map<number, Second>, now: number, seconds: number): number[][] {
  const end = Math.floor(now / 1000) - 1;
  const times: number[] = [];
  const counts: Record<'allowed' | 'denied' | 'dropped', number[]> = { allowed: [], denied: [], dropped: [] };
  for (let time = end - seconds + 1; time <= end; time += 1) {
    const second = rates.get(time);
    times.push(time);
    counts.allowed.push(second?.allowed ?? 0);
    counts.denied.push(second?.denied ?? 0);
    counts.dropped.push(second?.dropped ?? 0);
  }
  return [times, counts.allowed, counts.denied, counts.dropped];
}

export const CLASS_TEXT: Record<Class, string> = {
  allowed: 'Allowed',
  denied: 'Denied',
  dropped: 'Dropped',
  other: 'Seen',
};

/** An end of a flow, as the table has it. */
export function placeText(place: { namespace: string; name: string; ip: string }): string {
  if (place.namespace !== '' && place.name !== '') return `${place.namespace}/${place.name}`;
  return place.name || place.ip || 'unknown';
}

/** Port and protocol, such as `80/TCP`. */
export function serviceText(of: { protocol: string; port?: number | null; service?: number | null }): string {
  const port = of.port ?? of.service ?? null;
  if (of.protocol.startsWith('ICMP')) return of.protocol;
  return port === null ? of.protocol : `${port}/${of.protocol}`;
}

/** What decided a flow, in a sentence. */
export function ruleText(flow: Pick<Flow, 'class' | 'deny' | 'allow' | 'by_default' | 'reason'>): string {
  if (flow.class === 'denied') {
    if (flow.deny.length > 0) return `denied by ${flow.deny.join(', ')}`;
    return flow.by_default ? 'no rule allows it' : 'denied by a rule that was not named';
  }
  if (flow.class === 'dropped') return flow.reason;
  return flow.allow.length > 0 ? `allowed by ${flow.allow.join(', ')}` : '';
}
