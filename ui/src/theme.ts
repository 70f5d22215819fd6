// SPDX-License-Identifier: Apache-2.0
// Colours for what is drawn on a canvas: those of the style sheet, light or dark as the system is.

import { useEffect, useState } from 'preact/hooks';

const NAMES = ['text', 'muted', 'grid', 'card', 'border', 'accent', 'allowed', 'denied', 'dropped', 'mixed'] as const;

export type Colours = Record<(typeof NAMES)[number], string>;

export function colours(): Colours {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()])) as Colours;
}

/** Changes when the system's theme does. */
export function useTheme(): string {
  const [theme, setTheme] = useState(current);
  useEffect(() => {
    const query = window.matchMedia('(prefers-color-scheme: dark)');
    const changed = () => setTheme(current());
    query.addEventListener('change', changed);
    return () => query.removeEventListener('change', changed);
  }, []);
  return theme;
}

function current(): string {
  return window.matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
}
