// SPDX-License-Identifier: Apache-2.0
// A headless Chromium that looks at one page, for tests. Whatever the page complains of fails them.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
export const PATIENCE = 30_000;

/** Runs steps, each a sentence and what it does, and ends the process with how they went. */
export async function run(address, steps, options = {}) {
  const profile = mkdtempSync(join(tmpdir(), 'hubble-ui-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: FLAGS,
    viewport: { width: 1440, height: 900 },
    ...options,
  });
  const complaints = [];
  let failed = false;
  try {
    const page = context.pages()[0] ?? (await context.newPage());
    page.setDefaultTimeout(PATIENCE);
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) complaints.push(message.text());
    });
    page.on('pageerror', (error) => complaints.push(String(error)));
    page.on('dialog', (dialog) => {
      complaints.push(`a dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
    page.on('request', (request) => {
      if (!request.url().startsWith(address) && !request.url().startsWith('data:')) complaints.push(`asks elsewhere: ${request.url()}`);
    });
    await page.goto(address);
    for (const [sentence, step] of steps) {
      try {
        await step(page);
        if (complaints.length > 0) throw new Error(`the page complains: ${complaints.join('\n')}`);
        console.log(`ok   ${sentence}`);
      } catch (error) {
        failed = true;
        console.log(`FAIL ${sentence}\n${error.stack}\n${complaints.join('\n')}`);
        await shot(page, 'failed');
        break;
      }
    }
  } finally {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  }
  process.exitCode = failed ? 1 : 0;
}

/** A picture, if somebody wants to look at it. */
export async function shot(page, name) {
  if (process.env.SCREENSHOTS) await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`) });
}

/** Waits until something that is read off the page is as wanted. */
export async function until(page, what, read, wanted = (value) => value) {
  const end = Date.now() + PATIENCE;
  let last;
  for (;;) {
    last = await page.evaluate(read);
    if (wanted(last)) return last;
    if (Date.now() > end) throw new Error(`${what}: did not come about; last ${JSON.stringify(last)}`);
    await page.evaluate(() => new Promise(requestAnimationFrame));
  }
}

/** What the graph shows: names of services, and edges with their state. */
export function graph() {
  // There is none while another namespace is on its way.
  const core = document.getElementById('graph')?.core;
  if (core === undefined) return { services: [], edges: [] };
  const name = (id) => core.getElementById(id).data('label').replace('\n', '@');
  return {
    services: core.nodes().map((node) => name(node.id())),
    edges: core.edges().map((edge) => ({
      from: name(edge.data('source')),
      to: name(edge.data('target')),
      state: edge.data('state'),
      label: edge.data('label'),
    })),
  };
}

/** The lines of the table that are in sight. */
export function rows() {
  return [...document.querySelectorAll('#flows .row')].map((row) => [...row.children].map((cell) => cell.textContent.trim()));
}
