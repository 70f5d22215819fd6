// SPDX-License-Identifier: Apache-2.0
// Which flows the table shows. The server looks for them, so that it finds what is rare among many.

import { NO_FILTER, isPort, type Filter } from './protocol.ts';
import type { State } from './state.ts';

interface Given {
  filter: Filter;
  state: State;
  onFilter: (filter: Filter) => void;
}

export function Filters({ filter, state, onFilter }: Given) {
  const set = (name: keyof Filter) => (event: { currentTarget: HTMLInputElement | HTMLSelectElement }) =>
    onFilter({ ...filter, [name]: event.currentTarget.value });
  const filtered = Object.values(filter).some((value) => value !== '');
  return (
    <form class="filters" role="search" aria-label="Filter flows" onSubmit={(event) => event.preventDefault()}>
      <label>
        Verdict{' '}
        <select id="verdict" value={filter.verdict} onChange={set('verdict')}>
          <option value="">any</option>
          <option value="allowed">allowed</option>
          <option value="denied">denied by policy</option>
          <option value="dropped">dropped for any reason</option>
        </select>
      </label>
      <label>
        Pod <input id="pod" value={filter.pod} onInput={set('pod')} placeholder="name or namespace/name" spellcheck={false} />
      </label>
      <label>
        Port{' '}
        <input
          id="port"
          value={filter.port}
          inputMode="numeric"
          pattern="\d{1,5}"
          size={6}
          onInput={(event) => {
            const { value, validity } = event.currentTarget;
            event.currentTarget.setCustomValidity(isPort(value) ? '' : 'a number up to 65535');
            if (isPort(value) && !validity.badInput) onFilter({ ...filter, port: value });
          }}
        />
      </label>
      <label class="wide">
        Text <input id="text" type="search" value={filter.text} onInput={set('text')} placeholder="address, reason, rule, node" />
      </label>
      <button type="button" id="clear" disabled={!filtered} onClick={() => onFilter(NO_FILTER)}>
        Clear
      </button>
      <output id="count">
        {state.flows.length.toLocaleString()} {filtered ? 'matching flows' : 'flows'}
      </output>
    </form>
  );
}
