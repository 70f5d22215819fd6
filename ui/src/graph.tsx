// SPDX-License-Identifier: Apache-2.0
// The services and who talks to whom. Cytoscape draws it on a canvas; what is in it can be read and gone through by keyboard as well.

import cytoscape, { type Core, type ElementDefinition, type StylesheetJson } from 'cytoscape';
import { useEffect, useRef, useState } from 'preact/hooks';
import { vertexText } from './detail.tsx';
import { layout } from './layout.ts';
import type { Edge, Vertex } from './protocol.ts';
import { edgeState, type State } from './state.ts';
import { colours, useTheme } from './theme.ts';

/** With more services than this, edges are straight and without names. */
const MANY = 150;
/** Places are found anew once no service has come for so long, in milliseconds, or at the latest after the second. */
const SETTLED = 300;
const LATEST = 2000;

interface Given {
  state: State;
  selected: number | null;
  onSelect: (id: number | null) => void;
  onOnly: (pod: string) => void;
}

export function Graph({ state, selected, onSelect, onOnly }: Given) {
  const place = useRef<HTMLDivElement>(null);
  const core = useRef<Core | null>(null);
  const latest = useRef(state);
  latest.current = state;
  const theme = useTheme();
  useEffect(() => {
    const element = place.current;
    if (element === null) return undefined;
    const made = start(element, onSelect);
    core.current = made;
    return () => made.destroy();
  }, []);
  useEffect(() => void core.current?.style(styles(state.vertices.size > MANY)), [theme, state.vertices.size > MANY]);
  useEffect(() => {
    if (core.current !== null) draw(core.current, latest.current);
  }, [state]);
  const upright = useUpright(place);
  useLayout(core, latest, upright ? -1 - state.shape : state.shape);
  useEffect(() => {
    if (core.current !== null) mark(core.current, selected);
  }, [selected, state.shape]);
  const vertex = selected === null ? undefined : state.vertices.get(selected);
  const onKeyDown = (event: KeyboardEvent) => {
    if (core.current !== null && press(core.current, event.key, selected, onSelect)) event.preventDefault();
    else if (event.key === 'Enter' && vertex !== undefined) onOnly(vertexText(vertex));
  };
  return (
    <section class="graph" aria-label="Services">
      <div
        id="graph"
        ref={place}
        role="application"
        tabIndex={0}
        aria-label="Graph of services: arrows go from one to the next, Enter shows only its flows, plus and minus zoom, 0 shows all"
        aria-describedby="summary"
        onKeyDown={onKeyDown}
      />
      <p id="summary" aria-live="polite">
        {summary(state, vertex)}
      </p>
    </section>
  );
}

function summary(state: State, vertex: Vertex | undefined): string {
  const edges = [...state.edges.values()].filter((edge) => vertex === undefined || edge.from === vertex.id || edge.to === vertex.id);
  const count = (wanted: string[]) => edges.filter((edge) => wanted.includes(edgeState(edge, state.now))).length;
  const bad = [
    [count(['denied', 'mixed']), 'denied'],
    [count(['dropped']), 'dropped'],
  ].filter(([number]) => number !== 0);
  const who = vertex === undefined ? `${state.vertices.size} services` : vertexText(vertex);
  return [who, `${edges.length} connections`, ...bad.map(([number, what]) => `${number} ${what}`)].join(', ');
}

function start(element: HTMLElement, onSelect: (id: number | null) => void): Core {
  const core = cytoscape({
    container: element,
    autoungrabify: true,
    boxSelectionEnabled: false,
    hideEdgesOnViewport: false,
    minZoom: 0.03,
    maxZoom: 2.5,
    pixelRatio: 1,
    textureOnViewport: true,
    style: styles(false),
  });
  core.on('tap', (event) => {
    if (event.target === core) onSelect(null);
  });
  core.on('tap', 'node', (event) => onSelect(Number(event.target.id())));
  core.on('dragpan pinchzoom scrollzoom', () => void core.scratch('moved', true));
  core.on('resize', () => {
    if (!core.scratch('moved')) fit(core);
  });
  // Found by tests, and by whoever looks for what is drawn.
  Object.assign(element, { core });
  return core;
}

/** Marks a service and its edges. */
function mark(core: Core, selected: number | null) {
  core.batch(() => {
    core.elements().removeClass('near far');
    core.nodes().unselect();
    if (selected === null) return;
    const node = core.getElementById(String(selected));
    node.select();
    const near = node.closedNeighborhood();
    core.edges().not(near).addClass('far');
    near.edges().addClass('near');
  });
}

/** Brings what is drawn to what is known; what is as it was is not touched. */
function draw(core: Core, state: State) {
  core.batch(() => {
    core.nodes().forEach((node) => {
      if (!state.vertices.has(Number(node.id()))) node.remove();
    });
    core.edges().forEach((edge) => {
      if (!state.edges.has(edge.id())) edge.remove();
    });
    const added: ElementDefinition[] = [];
    for (const vertex of state.vertices.values()) {
      const known = core.getElementById(String(vertex.id));
      const text = label(vertex);
      if (known.empty()) added.push({ group: 'nodes', data: { id: String(vertex.id), label: text, kind: vertex.kind } });
      else if (known.data('label') !== text) known.data('label', text);
    }
    for (const [key, edge] of state.edges) {
      const data = edgeData(edge, state.now);
      const known = core.getElementById(key);
      if (known.empty()) added.push({ group: 'edges', data: { ...data, id: key, source: String(edge.from), target: String(edge.to) } });
      else if (known.data('state') !== data.state || known.data('label') !== data.label) known.data(data);
    }
    if (added.length > 0) core.add(added);
  });
}

function label(vertex: Vertex): string {
  return vertex.kind === 'workload' ? `${vertex.name}\n${vertex.namespace}` : vertex.name;
}

function edgeData(edge: Edge, now: number) {
  const state = edgeState(edge, now);
  const mark = state === 'allowed' ? '' : state === 'dropped' ? '▽ ' : '✕ ';
  const ports = edge.ports.slice(0, 3).map(({ port, protocol }) => (port === null || protocol.startsWith('ICMP') ? protocol : String(port)));
  return { state, label: `${mark}${ports.join(', ')}${edge.ports.length > 3 ? ', …' : ''}` };
}

/** Whether there is more height than width. */
function useUpright(place: { current: HTMLElement | null }): boolean {
  const [upright, setUpright] = useState(false);
  useEffect(() => {
    const element = place.current;
    if (element === null) return undefined;
    const watch = new ResizeObserver(() => setUpright(element.clientHeight > element.clientWidth));
    watch.observe(element);
    return () => watch.disconnect();
  }, []);
  return upright;
}

function useLayout(core: { current: Core | null }, latest: { current: State }, shape: number) {
  const waiting = useRef<number | null>(null);
  const since = useRef(0);
  useEffect(() => {
    if (waiting.current !== null) window.clearTimeout(waiting.current);
    else since.current = performance.now();
    const left = Math.max(0, since.current + LATEST - performance.now());
    waiting.current = window.setTimeout(() => {
      waiting.current = null;
      if (core.current !== null) arrange(core.current, latest.current);
    }, Math.min(SETTLED, left));
  }, [shape]);
  useEffect(
    () => () => {
      if (waiting.current !== null) window.clearTimeout(waiting.current);
    },
    [],
  );
}

function arrange(core: Core, state: State) {
  const names = [...state.vertices.values()].sort((a, b) => (vertexText(a) < vertexText(b) ? -1 : 1));
  const points = layout(names.map(({ id }) => id), [...state.edges.values()], core.height() > core.width());
  core.batch(() => core.nodes().positions((node) => points.get(Number(node.id())) ?? { x: 0, y: 0 }));
  // Who has looked closer goes on looking there.
  if (!core.scratch('moved')) fit(core);
}

function fit(core: Core) {
  core.fit(undefined, 40);
  if (core.zoom() > 1.2) {
    core.zoom(1.2);
    core.center();
  }
}

/** Whether a key means something here. */
function press(core: Core, key: string, selected: number | null, onSelect: (id: number | null) => void): boolean {
  const ways: Record<string, [number, number]> = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  const way = ways[key];
  if (way !== undefined) {
    const next = neighbour(core, selected, way);
    if (next !== null) onSelect(next);
  } else if (key === '+' || key === '=' || key === '-') {
    core.zoom({ level: core.zoom() * (key === '-' ? 0.8 : 1.25), renderedPosition: { x: core.width() / 2, y: core.height() / 2 } });
    core.scratch('moved', true);
  } else if (key === '0') {
    core.scratch('moved', false);
    fit(core);
  } else if (key === 'Escape') onSelect(null);
  else return false;
  return true;
}

/** The nearest service that way, by how far it is and how far beside. */
function neighbour(core: Core, selected: number | null, [x, y]: [number, number]): number | null {
  const from = selected === null ? undefined : core.getElementById(String(selected));
  let best: { id: number; far: number } | null = null;
  core.nodes().forEach((node) => {
    const [dx, dy] = from === undefined || from.empty()
      ? [node.position('x') + 1e6, (node.position('y') + 1e6) / 1000]
      : [node.position('x') - from.position('x'), node.position('y') - from.position('y')];
    const along = from === undefined || from.empty() ? dx : dx * x + dy * y;
    const far = along + 2.5 * Math.abs(from === undefined || from.empty() ? dy : dx * y + dy * x);
    if (along > 1 && (best === null || far < best.far)) best = { id: Number(node.id()), far };
  });
  return (best as { id: number } | null)?.id ?? null;
}

function styles(many: boolean): StylesheetJson {
  const { text, muted, card, border, accent, allowed, denied, dropped, mixed } = colours();
  return [
    {
      selector: 'node',
      style: {
        shape: 'round-rectangle', width: 150, height: 40, 'background-color': card, 'border-width': 1.5, 'border-color': border,
        label: 'data(label)', color: text, 'font-size': 12, 'font-family': 'system-ui, sans-serif', 'text-wrap': 'wrap',
        'text-max-width': '140px', 'text-overflow-wrap': 'anywhere', 'text-valign': 'center', 'text-halign': 'center', 'min-zoomed-font-size': 5,
      },
    },
    { selector: 'node[kind != "workload"]', style: { shape: 'ellipse', 'border-style': 'dashed', 'border-color': muted } },
    { selector: 'node:selected', style: { 'border-color': accent, 'border-width': 4 } },
    {
      selector: 'edge',
      style: {
        width: 1.5, 'curve-style': many ? 'straight' : 'bezier', 'target-arrow-shape': 'triangle', 'arrow-scale': 1, 'line-color': allowed,
        'target-arrow-color': allowed, label: many ? '' : 'data(label)', 'font-size': 10, color: text, 'text-background-color': card,
        'text-background-opacity': 0.85, 'text-background-padding': '2px', 'min-zoomed-font-size': 6,
      },
    },
    // Above the service, clear of its border.
    { selector: ':loop', style: { 'curve-style': 'bezier', 'loop-direction': '0deg', 'loop-sweep': '-40deg', 'control-point-step-size': 36 } },
    {
      selector: 'edge[state = "denied"]',
      style: { width: 3, 'line-color': denied, 'line-style': 'dashed', 'target-arrow-color': denied, 'target-arrow-shape': 'tee', color: denied },
    },
    {
      selector: 'edge[state = "mixed"]',
      style: { width: 3, 'line-color': mixed, 'line-style': 'dashed', 'line-dash-pattern': [12, 3], 'target-arrow-color': mixed, color: mixed },
    },
    {
      selector: 'edge[state = "dropped"]',
      style: { width: 2, 'line-color': dropped, 'line-style': 'dotted', 'target-arrow-color': dropped, 'target-arrow-shape': 'tee', color: dropped },
    },
    { selector: 'edge.near', style: { width: 4, label: 'data(label)', 'z-index': 1 } },
    { selector: 'edge.far', style: { opacity: 0.25 } },
  ] as StylesheetJson;
}
