// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { layout } from '../src/layout.ts';

test('who opens connections is left of whom they are opened to', () => {
  const points = layout([1, 2, 3, 4], [
    { from: 1, to: 2 },
    { from: 2, to: 3 },
    { from: 1, to: 3 },
  ]);
  const x = (id: number) => points.get(id)?.x ?? NaN;
  assert.ok(x(1) < x(2) && x(2) < x(3));
  assert.equal(x(4), x(1));
});

test('where there is more height than width, they are above each other', () => {
  const points = layout([1, 2], [{ from: 1, to: 2 }], true);
  assert.ok((points.get(1)?.y ?? NaN) < (points.get(2)?.y ?? NaN));
  assert.equal(points.get(1)?.x, points.get(2)?.x);
});

test('circles, links to oneself and to nobody end', () => {
  const links = [
    { from: 1, to: 2 },
    { from: 2, to: 1 },
    { from: 2, to: 2 },
    { from: 2, to: 99 },
  ];
  assert.deepEqual([...layout([1, 2], links).keys()].sort(), [1, 2]);
});

test('no two of a thousand services are at the same place, and a chain of them does not overflow the stack', () => {
  const ids = Array.from({ length: 1000 }, (_, id) => id);
  const links = ids.flatMap((id) => [1, 7, 31].map((step) => ({ from: id, to: (id * step + step) % 1000 })));
  for (const set of [links, ids.slice(1).map((id) => ({ from: id - 1, to: id })), []]) {
    const places = new Set([...layout(ids, set).values()].map(({ x, y }) => `${x},${y}`));
    assert.equal(places.size, 1000);
  }
});

test('many services of one layer are drawn in columns', () => {
  const ids = Array.from({ length: 400 }, (_, id) => id);
  const points = [...layout(ids, []).values()];
  const width = Math.max(...points.map(({ x }) => x)) - Math.min(...points.map(({ x }) => x));
  const height = Math.max(...points.map(({ y }) => y)) - Math.min(...points.map(({ y }) => y));
  assert.ok(width / height > 0.8 && width / height < 3, `${width} x ${height}`);
});

test('a link past a layer does not go through what is there', () => {
  const points = layout([1, 2, 3], [
    { from: 1, to: 2 },
    { from: 2, to: 3 },
    { from: 1, to: 3 },
  ]);
  const at = (id: number) => points.get(id) ?? { x: NaN, y: NaN };
  assert.equal(points.size, 3);
  const middle = at(1).y + ((at(3).y - at(1).y) * (at(2).x - at(1).x)) / (at(3).x - at(1).x);
  assert.ok(Math.abs(middle - at(2).y) > 20, `${middle} and ${at(2).y}`);
});
