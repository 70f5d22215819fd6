// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NO_FILTER, isPort, streamAddress, type Edge, type Flow, type Update } from '../src/protocol.ts';
import { RECENT, ROWS, apply, edgeState, emptyState, placeText, ruleText, series, serviceText } from '../src/state.ts';

const NOW = 1_700_000_000_500;

function update(more: Partial<Update>): Update {
  const nothing = { vertices: [], edges: [], rates: [], flows: [], unavailable: [] };
  return { now: NOW, reset: false, problem: null, lost: 0, missed: 0, left_out: { vertices: 0, edges: 0 }, ...nothing, ...more };
}

function edge(more: Partial<Edge>): Edge {
  const none = { flows: 0, last: 0 };
  return { from: 0, to: 1, allowed: none, denied: none, dropped: none, ports: [], reason: '', rules: [], proposal: null, ...more };
}

function flow(id: number): Flow {
  const place = { namespace: 'shop', name: 'web', ip: '10.0.0.1', port: 80 };
  return {
    id, time: NOW, class: 'allowed', reason: '', source: place, destination: place, protocol: 'TCP', service: 80, reply: false,
    direction: 'ingress', node: 'n1', request: '', deny: [], allow: [], by_default: false, proposal: null,
  };
}

test('the newest flows are first, and the oldest go', () => {
  let state = apply(emptyState(), update({ reset: true, flows: [flow(1), flow(2)] }), true);
  assert.deepEqual(state.flows.map(({ id }) => id), [2, 1]);
  state = apply(state, update({ flows: Array.from({ length: ROWS }, (_, at) => flow(at + 3)) }), false);
  assert.equal(state.flows.length, ROWS);
  assert.equal(state.flows[0]?.id, ROWS + 2);
  state = apply(state, update({ reset: true, flows: [flow(9)] }), true);
  assert.deepEqual(state.flows.map(({ id }) => id), [9]);
});

test('only new vertices and edges change the shape, and a reset forgets those that are gone', () => {
  const vertex = { id: 0, kind: 'workload' as const, namespace: 'shop', name: 'web', labels: [], services: [] };
  let state = apply(emptyState(), update({ vertices: [vertex], edges: [edge({})] }), true);
  const { shape } = state;
  state = apply(state, update({ vertices: [vertex], edges: [edge({ reason: 'x' })] }), false);
  assert.equal(state.shape, shape);
  assert.equal(state.edges.get('0-1')?.reason, 'x');
  state = apply(state, update({ reset: true }), false);
  assert.ok(state.shape > shape && state.vertices.size === 0 && state.edges.size === 0);
});

test('an edge is denied while it is, and mixed if something else on it is allowed', () => {
  const now = { flows: 1, last: NOW };
  const before = { flows: 1, last: NOW - RECENT };
  assert.equal(edgeState(edge({ allowed: now }), NOW), 'allowed');
  assert.equal(edgeState(edge({ denied: now, allowed: before }), NOW), 'denied');
  assert.equal(edgeState(edge({ denied: now, allowed: now }), NOW), 'mixed');
  assert.equal(edgeState(edge({ denied: before, allowed: now }), NOW), 'allowed');
  assert.equal(edgeState(edge({ denied: before }), NOW), 'denied');
  assert.equal(edgeState(edge({ dropped: now }), NOW), 'dropped');
});

test('plots are of whole seconds, and of nothing where nothing was', () => {
  const second = Math.floor(NOW / 1000);
  const rates = [second - 700, second - 2, second].map((time) => ({ time, allowed: 5, denied: 1, dropped: 0 }));
  const state = apply(emptyState(), update({ rates }), true);
  assert.equal(state.rates.size, 2);
  const [times, allowed] = series(state.rates, NOW, 3);
  assert.deepEqual(times, [second - 3, second - 2, second - 1]);
  assert.deepEqual(allowed, [0, 5, 0]);
});

test('a sentence says what decided a flow', () => {
  const denied = { ...flow(1), class: 'denied' as const };
  assert.equal(ruleText({ ...denied, by_default: true }), 'no rule allows it');
  assert.equal(ruleText({ ...denied, deny: ['CiliumNetworkPolicy shop/a'] }), 'denied by CiliumNetworkPolicy shop/a');
  assert.equal(ruleText(denied), 'denied by a rule that was not named');
  assert.equal(ruleText({ ...denied, class: 'dropped', reason: 'Invalid source ip' }), 'Invalid source ip');
  assert.equal(ruleText(flow(1)), '');
  assert.equal(placeText({ namespace: '', name: '', ip: '192.0.2.1' }), '192.0.2.1');
  assert.equal(serviceText({ protocol: 'TCP', port: 80 }), '80/TCP');
  assert.equal(serviceText({ protocol: 'ICMPv4', service: 8 }), 'ICMPv4');
});

test('what is typed is a value of the query and nothing else', () => {
  assert.equal(streamAddress('shop', NO_FILTER), '/api/events?namespace=shop');
  assert.equal(streamAddress('', { ...NO_FILTER, text: ' a&b=c#d ' }), '/api/events?namespace=&text=a%26b%3Dc%23d');
  assert.ok(isPort('') && isPort('65535') && !isPort('65536') && !isPort('http') && !isPort('-1'));
});
