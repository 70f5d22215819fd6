// SPDX-License-Identifier: Apache-2.0
// Rates over the last minutes: what was allowed, and what was not.

import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { series, type State } from './state.ts';
import { colours, useTheme } from './theme.ts';

const SPAN = 300;
const HEIGHT = 104;

export function Plots({ state }: { state: State }) {
  const data = series(state.rates, state.now, SPAN);
  const [times = [], allowed = [], denied = [], dropped = []] = data;
  return (
    <>
      <Plot id="rates" title="Allowed" lines={[{ name: 'allowed', values: allowed }]} times={times} />
      <Plot
        id="drops"
        title="Denied and dropped"
        lines={[
          { name: 'denied', values: denied },
          { name: 'dropped', values: dropped, dash: [4, 3] },
        ]}
        times={times}
      />
    </>
  );
}

interface Line {
  name: 'allowed' | 'denied' | 'dropped';
  values: number[];
  dash?: number[];
}

function Plot({ id, title, lines, times }: { id: string; title: string; lines: Line[]; times: number[] }) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const theme = useTheme();
  useEffect(() => {
    const element = place.current;
    if (element === null) return undefined;
    const made = new uPlot(options(element.clientWidth, lines), [times, ...lines.map(({ values }) => values)], element);
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    watch.observe(element);
    return () => {
      watch.disconnect();
      made.destroy();
    };
  }, [theme]);
  useEffect(() => plot.current?.setData([times, ...lines.map(({ values }) => values)]), [times.at(-1), theme]);
  const recent = lines.map(({ name, values }) => `${rate(values)} ${name}/s`).join(', ');
  return (
    <figure id={id} class="plot">
      <figcaption>
        {title} <output>{recent}</output>
      </figcaption>
      <div ref={place} role="img" aria-label={`${title} over five minutes; in the last ten seconds ${recent}`} />
    </figure>
  );
}

/** The mean of the last ten seconds. */
function rate(values: readonly number[]): string {
  const last = values.slice(-10);
  const mean = last.reduce((sum, value) => sum + value, 0) / Math.max(1, last.length);
  return mean >= 10 || mean === 0 ? mean.toFixed(0) : mean.toFixed(1);
}

/** Hours and minutes of a time in seconds. */
function clock(time: number): string {
  const date = new Date(time * 1000);
  return [date.getHours(), date.getMinutes()].map((part) => String(part).padStart(2, '0')).join(':');
}

function options(width: number, lines: Line[]): uPlot.Options {
  const { text, grid, ...colour } = colours();
  const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: '11px system-ui' };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    padding: [6, 8, 0, 0],
    scales: { y: { range: (_, __, max) => [0, Math.max(1, max * 1.1)] } },
    axes: [
      { ...axis, size: 28, space: 70, values: (_, times) => times.map(clock) },
      { ...axis, size: 42, space: 24 },
    ],
    series: [
      {},
      ...lines.map(({ name, dash }) => ({
        stroke: colour[name],
        fill: `${colour[name]}22`,
        width: 1.5,
        points: { show: false },
        ...(dash === undefined ? {} : { dash }),
      })),
    ],
  };
}
