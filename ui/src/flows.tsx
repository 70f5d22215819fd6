// SPDX-License-Identifier: Apache-2.0
// The table of flows. Only the rows in sight are in the document, so that thousands cost no more than thirty.

import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { Flow } from './protocol.ts';
import { CLASS_TEXT, placeText, ruleText, serviceText } from './state.ts';

const HEIGHT = 28;
/** Rows above and below what is in sight. */
const SPARE = 8;
const MARKS = { allowed: '✓', denied: '✕', dropped: '▽', other: '·' };
const COLUMNS = ['Time', 'Verdict', 'From', 'To', 'Port', 'Rule or reason', 'Node'];

interface Given {
  flows: Flow[];
  selected: number | null;
  onSelect: (flow: Flow | null) => void;
}

export function Flows({ flows: live, selected, onSelect }: Given) {
  const [held, setHeld] = useState<Flow[] | null>(null);
  const flows = held ?? live;
  const frame = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 400 });
  useHeight(frame, (height) => setView((before) => ({ ...before, height })));
  const first = Math.max(0, Math.floor(view.top / HEIGHT) - SPARE);
  const last = Math.min(flows.length, Math.ceil((view.top + view.height) / HEIGHT) + SPARE);
  const at = useMemo(() => flows.findIndex((flow) => flow.id === selected), [flows, selected]);
  const go = (index: number) => {
    const flow = flows[Math.min(Math.max(index, 0), flows.length - 1)];
    if (flow === undefined) return;
    // What one reads is to stand still.
    setHeld(flows);
    onSelect(flow);
    reveal(frame.current, flows.indexOf(flow));
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const page = Math.max(1, Math.floor(view.height / HEIGHT) - 1);
    const steps: Record<string, number> = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: flows.length };
    const to = steps[event.key];
    if (to !== undefined) go(to);
    else if (event.key === 'Escape') {
      setHeld(null);
      onSelect(null);
    } else if (event.key === ' ') setHeld(held === null ? live : null);
    else return;
    event.preventDefault();
  };
  return (
    <div class="flows">
      <div class="row head" aria-hidden="true">
        {COLUMNS.map((name) => (
          <span key={name}>{name}</span>
        ))}
      </div>
      <div
        id="flows"
        ref={frame}
        class="frame"
        role="listbox"
        tabIndex={0}
        aria-label="Flows, the newest first; arrows select, Escape goes on, space holds"
        aria-activedescendant={at >= first && at < last ? `flow-${selected}` : undefined}
        onScroll={(event) => {
          const top = event.currentTarget.scrollTop;
          setView((before) => ({ ...before, top }));
        }}
        onKeyDown={onKeyDown}
      >
        <div class="all" style={{ height: `${flows.length * HEIGHT}px` }}>
          {flows.slice(first, last).map((flow, index) => (
            <Row key={flow.id} flow={flow} at={first + index} selected={flow.id === selected} onClick={() => go(first + index)} />
          ))}
        </div>
        {flows.length === 0 && <p class="none">No flows yet that match.</p>}
      </div>
      <button type="button" id="hold" aria-pressed={held !== null} onClick={() => setHeld(held === null ? live : null)}>
        {held === null ? 'Hold' : 'Go on'}
      </button>
    </div>
  );
}

function Row({ flow, at, selected, onClick }: { flow: Flow; at: number; selected: boolean; onClick: () => void }) {
  const rule = flow.request === '' ? ruleText(flow) : [flow.request, ruleText(flow)].filter(Boolean).join(' · ');
  return (
    <div
      id={`flow-${flow.id}`}
      class={`row ${flow.class}`}
      role="option"
      aria-selected={selected}
      style={{ top: `${at * HEIGHT}px` }}
      onClick={onClick}
    >
      <span>{clock(flow.time)}</span>
      <span class="verdict">
        <i aria-hidden="true">{MARKS[flow.class]}</i> {CLASS_TEXT[flow.class]}
      </span>
      <span title={flow.source.ip}>{placeText(flow.source)}</span>
      <span title={flow.destination.ip}>
        {flow.reply ? '↩ ' : ''}
        {placeText(flow.destination)}
      </span>
      <span>{serviceText(flow)}</span>
      <span title={rule}>{rule}</span>
      <span>{flow.node}</span>
    </div>
  );
}

/** A time of day with milliseconds. */
export function clock(time: number): string {
  const date = new Date(time);
  const two = (number: number) => String(number).padStart(2, '0');
  const seconds = `${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, '0')}`;
  return `${two(date.getHours())}:${two(date.getMinutes())}:${seconds}`;
}

function reveal(frame: HTMLDivElement | null, at: number) {
  if (frame === null) return;
  const [top, bottom] = [at * HEIGHT, (at + 1) * HEIGHT];
  if (top < frame.scrollTop) frame.scrollTop = top;
  else if (bottom > frame.scrollTop + frame.clientHeight) frame.scrollTop = bottom - frame.clientHeight;
}

function useHeight(of: { current: HTMLElement | null }, tell: (height: number) => void) {
  useEffect(() => {
    const element = of.current;
    if (element === null) return undefined;
    const watch = new ResizeObserver(() => tell(element.clientHeight));
    watch.observe(element);
    return () => watch.disconnect();
  }, []);
}
