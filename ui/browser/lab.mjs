// SPDX-License-Identifier: Apache-2.0
// The page of a real cluster, in which a client asks `echo` in the namespace `net`. STAGE says what a policy does about it. The last line of
// output of the stage `denied` is the policy that the page proposes, as a text in JSON.

import assert from 'node:assert/strict';
import { graph, rows, run, shot, until } from './page.mjs';

const stage = process.env.STAGE;
const edge = ({ edges }) => edges.find((edge) => edge.from === 'client@net' && edge.to === 'echo@net');

const choose = ['the namespace is chosen', async (page) => {
  await page.locator('#namespace option', { hasText: /^net$/ }).waitFor({ state: 'attached' });
  await page.selectOption('#namespace', 'net');
  await page.locator('#status.well').waitFor();
}];

const denied = async (page, said) => {
  await until(page, 'the denied edge', graph, (found) => ['denied', 'mixed'].includes(edge(found)?.state));
  await page.selectOption('#verdict', 'denied');
  await page.fill('#pod', 'net/client');
  await until(page, 'its flows', rows, (rows) => rows.some((row) => row[1].includes('Denied') && row[5].includes(said)));
  await page.locator('#flows .row', { hasText: said }).first().click();
};

const STAGES = {
  allowed: [
    ['the graph appears with the allowed edge', async (page) => {
      await until(page, 'the edge', graph, (found) => edge(found)?.state === 'allowed');
    }],
    ['filters narrow the table', async (page) => {
      await page.fill('#port', '8080');
      await until(page, 'flows', rows, (rows) => rows.length > 0 && rows.every((row) => row[4] === '8080/TCP'));
      await page.fill('#port', '1');
      await until(page, 'none', rows, (rows) => rows.length === 0);
    }],
  ],
  denied: [
    ['what no rule allows is denied, with the policy that would allow it', async (page) => {
      await denied(page, 'no rule allows it');
      const policy = await page.locator('.proposal pre').textContent();
      await shot(page, 'lab');
      console.log(JSON.stringify(policy));
    }],
  ],
  ruled: [
    ['what a rule denies names it', async (page) => {
      await denied(page, 'keep-out');
      assert.equal(await page.textContent('#rule'), 'denied by CiliumNetworkPolicy net/keep-out');
    }],
  ],
};

await run(process.env.UI, [choose, ...STAGES[stage]]);
