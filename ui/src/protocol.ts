// SPDX-License-Identifier: Apache-2.0
// What the server tells: see crates/ui/src/view.rs. All texts in it may have been made up by anybody.

export type Class = 'allowed' | 'denied' | 'dropped' | 'other';
export type Kind = 'workload' | 'entity' | 'world' | 'dns';

export interface Vertex {
  id: number;
  kind: Kind;
  namespace: string;
  name: string;
  labels: string[];
  services: string[];
}

export interface Count {
  flows: number;
  last: number;
}

export interface Port {
  protocol: string;
  port: number | null;
  allowed: number;
  denied: number;
  dropped: number;
}

export interface Edge {
  from: number;
  to: number;
  allowed: Count;
  denied: Count;
  dropped: Count;
  ports: Port[];
  reason: string;
  rules: string[];
  proposal: number | null;
}

export interface Place {
  namespace: string;
  name: string;
  ip: string;
  port: number | null;
}

export interface Flow {
  id: number;
  time: number;
  class: Class;
  reason: string;
  source: Place;
  destination: Place;
  protocol: string;
  service: number | null;
  reply: boolean;
  direction: string;
  node: string;
  request: string;
  deny: string[];
  allow: string[];
  by_default: boolean;
  proposal: number | null;
}

export interface Second {
  time: number;
  allowed: number;
  denied: number;
  dropped: number;
}

export interface Update {
  now: number;
  reset: boolean;
  problem: string | null;
  unavailable: string[];
  lost: number;
  missed: number;
  left_out: { vertices: number; edges: number };
  vertices: Vertex[];
  edges: Edge[];
  rates: Second[];
  flows: Flow[];
}

export interface Filter {
  verdict: string;
  pod: string;
  port: string;
  text: string;
}

export const NO_FILTER: Filter = { verdict: '', pod: '', port: '', text: '' };

/** The address of the stream of a namespace, with a filter for its flows. */
export function streamAddress(namespace: string, filter: Filter): string {
  const query = new URLSearchParams({ namespace });
  for (const [name, value] of Object.entries(filter)) {
    if (value.trim() !== '') query.set(name, value.trim());
  }
  return `/api/events?${query}`;
}

/** Whether this can be a port; the empty text is none. */
export function isPort(text: string): boolean {
  return text.trim() === '' || (/^\d{1,5}$/.test(text.trim()) && Number(text) <= 65535);
}
