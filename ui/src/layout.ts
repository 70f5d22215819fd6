// SPDX-License-Identifier: Apache-2.0
// Where vertices are drawn: in layers, from those that open connections on the left to those that are asked on the right. It takes time in
// proportion to what there is, so that a thousand services are placed between two frames, and the same graph is always placed alike.

export interface Point {
  x: number;
  y: number;
}

export interface Link {
  from: number;
  to: number;
}

/** Between layers that stand beside each other, and within them. */
const STEP_X = 260;
const STEP_Y = 64;
/** Between layers that lie above each other, and within them. */
const STEP_DOWN = 110;
const STEP_BESIDE = 180;
/** How often the order within layers is improved. */
const SWEEPS = 4;
/** With more links than this, room is no longer left for those that pass a layer by. */
const PASSING = 400;

/** Places for the vertices, which come in their order of preference; in layers from top to bottom if there is more height than width. */
export function layout(vertices: readonly number[], links: readonly Link[], upright = false): Map<number, Point> {
  const ranked = rank(vertices, links);
  const passing = links.length > PASSING ? links : pass(ranked, links);
  const layers = order(ranked, passing);
  const [along, across] = upright ? [STEP_DOWN, STEP_BESIDE] : [STEP_X, STEP_Y];
  const most = longest(layers.flat().length, along, across);
  const points = new Map<number, Point>();
  let start = 0;
  for (const layer of layers) {
    const lines = Math.max(1, Math.ceil(layer.length / most));
    const length = Math.ceil(layer.length / lines);
    layer.forEach((id, at) => {
      const line = Math.floor(at / length);
      const inLine = Math.min(length, layer.length - line * length);
      const [depth, beside] = [start + line * along, ((at % length) - (inLine - 1) / 2) * across];
      if (id >= 0) points.set(id, upright ? { x: beside, y: depth } : { x: depth, y: beside });
    });
    start += lines * along + (layers.length > 1 ? along / 4 : 0);
  }
  return points;
}

/** Lines of a layer no longer than this make a picture somewhat longer along the layers than across. */
function longest(count: number, along: number, across: number): number {
  return Math.max(along > across ? 6 : 3, Math.ceil(Math.sqrt((count * along) / across / 1.6)));
}

/** Layers by the longest way from whom nobody asks; links that close a circle do not count. */
function rank(vertices: readonly number[], links: readonly Link[]): number[][] {
  const next = new Map<number, number[]>(vertices.map((id) => [id, []]));
  for (const { from, to } of links) {
    if (from !== to && next.has(to)) next.get(from)?.push(to);
  }
  const sorted = finished(vertices, next);
  const place = new Map(sorted.map((id, at) => [id, at]));
  const ranks = new Map<number, number>(vertices.map((id) => [id, 0]));
  for (const id of sorted) {
    for (const to of next.get(id) ?? []) {
      if ((place.get(to) ?? 0) > (place.get(id) ?? 0)) ranks.set(to, Math.max(ranks.get(to) ?? 0, (ranks.get(id) ?? 0) + 1));
    }
  }
  const layers: number[][] = [];
  for (const id of vertices) (layers[ranks.get(id) ?? 0] ??= []).push(id);
  return layers.filter((layer) => layer !== undefined);
}

/** Leaves room in each layer for the links that go past it, as vertices with numbers below 0; returns the links with these between. */
function pass(layers: number[][], links: readonly Link[]): Link[] {
  const ranks = new Map(layers.flatMap((layer, at) => layer.map((id) => [id, at] as const)));
  const parts: Link[] = [];
  let next = -1;
  for (const { from, to } of links) {
    let last = from;
    for (let at = (ranks.get(from) ?? 0) + 1; at < (ranks.get(to) ?? 0); at += 1) {
      layers[at]?.push(next);
      parts.push({ from: last, to: next });
      last = next;
      next -= 1;
    }
    parts.push({ from: last, to });
  }
  return parts;
}

/** All vertices, each before those that it asks but for circles: a search in depth without recursion. Whom nobody asks comes first. */
function finished(vertices: readonly number[], next: Map<number, number[]>): number[] {
  const asked = new Set([...next.values()].flat());
  const starts = [...vertices.filter((id) => !asked.has(id)), ...vertices.filter((id) => asked.has(id))];
  const seen = new Set<number>();
  const order: number[] = [];
  for (const start of starts) {
    if (seen.has(start)) continue;
    seen.add(start);
    const stack: { id: number; at: number }[] = [{ id: start, at: 0 }];
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const to = next.get(top.id)?.[top.at];
      top.at += 1;
      if (to === undefined) {
        order.push(top.id);
        stack.pop();
      } else if (!seen.has(to)) {
        seen.add(to);
        stack.push({ id: to, at: 0 });
      }
    }
  }
  return order.reverse();
}

/** Moves each vertex towards the middle of those that it is linked with in the layer before and after, in turns. */
function order(layers: number[][], links: readonly Link[]): number[][] {
  const near = new Map<number, number[]>();
  for (const { from, to } of links) {
    if (!near.has(from)) near.set(from, []);
    if (!near.has(to)) near.set(to, []);
    near.get(from)?.push(to);
    near.get(to)?.push(from);
  }
  const height = new Map<number, number>();
  const note = (layer: number[]) => layer.forEach((id, at) => height.set(id, at - layer.length / 2));
  layers.forEach(note);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const turn = sweep % 2 === 0 ? layers : [...layers].reverse();
    for (const layer of turn) {
      const wish = new Map(layer.map((id) => [id, middle(near.get(id) ?? [], height) ?? height.get(id) ?? 0]));
      layer.sort((a, b) => (wish.get(a) ?? 0) - (wish.get(b) ?? 0));
      note(layer);
    }
  }
  return layers;
}

function middle(ids: readonly number[], height: Map<number, number>): number | undefined {
  if (ids.length === 0) return undefined;
  return ids.reduce((sum, id) => sum + (height.get(id) ?? 0), 0) / ids.length;
}
