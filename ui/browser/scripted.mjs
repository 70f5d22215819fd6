// SPDX-License-Identifier: Apache-2.0
// The page before the real server, which is told flows by a relay that does as `crates/ui/tests/browser` says.

import assert from 'node:assert/strict';
import { graph, rows, run, shot, until } from './page.mjs';

const address = process.env.UI;
const tell = async (scene) => assert.ok((await fetch(`${process.env.CONTROL}/${scene}`, { method: 'POST' })).ok, scene);
const edge = (found, from, to) => found.edges.find((edge) => edge.from === from && edge.to === to);
const count = () => Number(document.getElementById('count').textContent.replace(/\D/g, ''));

const steps = [
  ['namespaces are listed, and one of them is chosen', async (page) => {
    await page.locator('#namespace option', { hasText: 'shop' }).waitFor({ state: 'attached' });
    await page.selectOption('#namespace', 'shop');
    await page.locator('#status.well').waitFor();
  }],
  ['the graph appears with its allowed edges', async (page) => {
    await tell('talk');
    const found = await until(page, 'the graph', graph, ({ edges }) => edges.length === 5);
    assert.deepEqual(found.services.sort(), ['api.example.com', 'cart@shop', 'db@shop', 'visitor@shop', 'web@shop']);
    assert.ok(found.edges.every(({ state }) => state === 'allowed'), JSON.stringify(found));
    assert.equal(edge(found, 'web@shop', 'db@shop').label, '5432');
    assert.equal(edge(found, 'db@shop', 'db@shop').label, '7000', 'pods of one service that ask each other');
  }],
  ['a denied edge appears after a policy, told apart by more than its colour', async (page) => {
    await tell('deny');
    const found = await until(page, 'the denied edge', graph, (found) => edge(found, 'visitor@shop', 'web@shop')?.state === 'mixed');
    assert.match(edge(found, 'visitor@shop', 'web@shop').label, /^✕ /);
    await until(page, 'the summary', () => document.getElementById('summary').textContent, (text) => text.includes('2 denied'));
  }],
  ['filters narrow the table', async (page) => {
    const all = await until(page, 'flows', count, (flows) => flows > 20);
    await page.selectOption('#verdict', 'denied');
    const denied = await until(page, 'the denied ones', count, (flows) => flows > 0 && flows < all);
    assert.ok((await page.evaluate(rows)).every((row) => row[1].includes('Denied')), 'a row that was not denied');
    await page.fill('#text', 'closed-shop');
    await until(page, 'those of a rule', count, (flows) => flows > 0 && flows < denied);
    await page.fill('#port', '1');
    await until(page, 'none', count, (flows) => flows === 0);
    await page.click('#clear');
    await page.fill('#pod', 'shop/cart');
    await until(page, 'those of a pod', rows, (rows) => rows.length > 0 && rows.every((row) => `${row[2]} ${row[3]}`.includes('shop/cart')));
    await page.click('#clear');
  }],
  ['the rule that denied a flow is shown', async (page) => {
    await page.fill('#text', 'closed-shop');
    await until(page, 'its flows', rows, (rows) => rows.length > 0 && rows.every((row) => row[5].includes('closed-shop')));
    await page.locator('#flows .row').first().click();
    assert.equal(await page.textContent('#rule'), 'denied by CiliumNetworkPolicy shop/closed-shop');
    assert.equal(await page.locator('.proposal').count(), 0, 'an addition would not help');
    await page.click('#clear');
  }],
  ['the missing rule is proposed, and can be copied', async (page) => {
    await page.selectOption('#verdict', 'denied');
    await page.fill('#pod', 'visitor');
    await until(page, 'its flows', rows, (rows) => rows.some((row) => row[5] === 'no rule allows it'));
    await page.locator('#flows .row', { hasText: 'no rule allows it' }).first().click();
    const policy = await page.locator('.proposal pre').textContent();
    for (const part of ['kind: CiliumNetworkPolicy', 'allow-visitor-to-web', 'namespace: shop', 'fromEndpoints']) assert.ok(policy.includes(part), policy);
    await page.click('.proposal .copy');
    await until(page, 'copied', () => document.querySelector('.proposal .copy').textContent, (said) => said === 'Copied' || said === 'Selected');
    await shot(page, 'proposal-light');
    await page.click('#clear');
  }],
  ['everything can be done by keyboard', async (page) => {
    await page.keyboard.press('Escape');
    await page.focus('#graph');
    await page.keyboard.press('ArrowRight');
    const first = await until(page, 'a selected service', () => document.querySelector('#detail h2')?.textContent);
    await page.keyboard.press('ArrowRight');
    await until(page, 'the next one', () => document.querySelector('#detail h2')?.textContent, (name) => name && name !== first);
    const chosen = await page.textContent('#detail h2');
    await page.keyboard.press('Enter');
    await until(page, 'only its flows', () => document.getElementById('pod').value, (value) => value === chosen);
    await page.keyboard.press('Escape');
    await page.focus('#clear');
    await page.keyboard.press('Enter');
    await page.focus('#flows');
    await until(page, 'flows', rows, (rows) => rows.length > 3);
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('ArrowDown');
    const active = () => document.getElementById(document.getElementById('flows').getAttribute('aria-activedescendant'))?.ariaSelected;
    await until(page, 'the selected flow', active, (selected) => selected === 'true');
    await page.keyboard.press('Escape');
    const order = await page.evaluate(() => [...document.querySelectorAll('[tabindex="0"], input, select, button:not(:disabled)')].map((at) => at.id || at.className));
    for (const id of ['namespace', 'graph', 'verdict', 'pod', 'port', 'text', 'flows']) assert.ok(order.includes(id), id);
  }],
  ['texts of flows are texts', async (page) => {
    await tell('hostile');
    await page.fill('#text', 'onerror');
    await until(page, 'its flows', rows, (rows) => rows.length > 0 && rows[0][2].includes('<img src=x'));
    await page.locator('#flows .row').first().click();
    assert.equal(await page.locator('img, script:not([src])').count(), 0);
    await page.click('#clear');
  }],
  ['light and dark, wide and narrow', async (page) => {
    await tell('talk');
    await page.keyboard.press('Escape');
    await until(page, 'rates', () => document.querySelector('#rates output').textContent, (said) => !said.startsWith('0 '));
    for (const scheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme: scheme });
      for (const [name, width, height] of [['wide', 1440, 900], ['narrow', 420, 900]]) {
        await page.setViewportSize({ width, height });
        const broad = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(broad <= width, `${name}: ${broad} pixels in ${width}`);
        const fits = () => {
          const { core, clientWidth, clientHeight } = document.getElementById('graph');
          const box = core.elements().renderedBoundingBox();
          const inside = box.x1 >= 0 && box.y1 >= 0 && box.x2 <= clientWidth && box.y2 <= clientHeight;
          return inside && box.h > box.w === clientHeight > clientWidth;
        };
        await until(page, 'all services in sight', fits);
        await shot(page, `${name}-${scheme}`);
      }
    }
    await page.emulateMedia({ colorScheme: 'light' });
    await page.setViewportSize({ width: 1440, height: 900 });
  }],
  ['a thousand services and a thousand flows a second do not keep it from answering', async (page) => {
    await page.selectOption('#namespace', 'crowd');
    await tell('crowd');
    await page.evaluate(() => {
      window.gaps = [];
      let last = performance.now();
      const frame = (now) => {
        window.gaps.push(now - last);
        last = now;
        requestAnimationFrame(frame);
      };
      requestAnimationFrame(frame);
    });
    await until(page, 'all services', graph, ({ services }) => services.length >= 1000);
    await until(page, 'the flows', () => document.getElementById('gaps')?.textContent ?? '', (text) => text.includes('not listed'));
    await page.fill('#pod', 'crowd/service-777');
    await until(page, 'only its flows', rows, (rows) => rows.length > 0 && rows.every((row) => `${row[2]} ${row[3]}`.includes('service-777')));
    await page.focus('#graph');
    await page.keyboard.press('0');
    await page.keyboard.press('ArrowRight');
    await page.locator('#detail h2').waitFor();
    assert.ok((await page.locator('#flows .row').count()) < 100, 'rows out of sight are in the document');
    const worst = await page.evaluate(() => [...window.gaps].sort((a, b) => b - a).slice(0, 5).map(Math.round));
    const heap = await page.evaluate(() => Math.round((performance.memory?.usedJSHeapSize ?? 0) / 2 ** 20));
    console.log(`     longest frames: ${worst.join(', ')} ms; heap ${heap} MiB; services ${(await page.evaluate(graph)).services.length}`);
    await shot(page, 'crowd');
  }],
];

await run(address, steps);
