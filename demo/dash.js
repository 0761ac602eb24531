// The dashboard: one number a second from each tab, drawn as lines. Where this tab has missed some, the lines have a hole.

import { colourClass, colourOf, cssColour, element, onTheme } from './people.js';

const CHANNEL = 'dash:load';
const EVERY_MS = 1000;
const SHOWN_MS = 60_000;
const HOLE_MS = 2500;
const MAX_LINES = 12;

/** Shows the chart, and how long a number takes to come back. */
export function startDash(client) {
  const canvas = document.getElementById('chart');
  const legend = document.getElementById('legend');
  const trip = document.getElementById('trip');
  const context = canvas.getContext('2d');
  const dash = client.channel(CHANNEL);
  /** By name: what came, and when. */
  const lines = new Map();
  const sentAtMs = new Map();

  dash.subscribe(({ from, data }) => {
    const value = Number(data?.value);
    if (from === undefined || !(value >= 0 && value <= 100)) return;
    const nowMs = performance.now();
    const line = lines.get(from) ?? [];
    if (!lines.has(from) && lines.size >= MAX_LINES) return;
    lines.set(from, line);
    line.push({ atMs: nowMs, value });
    if (sentAtMs.has(data.mark)) {
      trip.textContent = `${Math.max(1, Math.round(nowMs - sentAtMs.get(data.mark)))} ms`;
      sentAtMs.delete(data.mark);
    }
  });

  // ── My number ─────────────────────────────────────────────────────────────────────────────

  const phase = colourOf(client.user ?? '') + Math.random() * 6;
  let wave = 0;
  let drift = 35 + Math.random() * 20;
  document.getElementById('wave').addEventListener('click', () => {
    wave = 45;
  });
  setInterval(() => {
    drift = Math.min(60, Math.max(20, drift + Math.random() * 6 - 3));
    wave *= 0.8;
    const value = Math.min(100, Math.max(0, drift + 12 * Math.sin(Date.now() / 5000 + phase) + wave));
    // Old numbers are of no use, so none is kept for later.
    if (client.state !== 'open') return;
    const mark = Math.random().toString(36).slice(2);
    sentAtMs.set(mark, performance.now());
    dash.publish({ value: Math.round(value * 10) / 10, mark }).catch(() => {});
    for (const oldest of sentAtMs.keys()) if (sentAtMs.size > 20) sentAtMs.delete(oldest);
  }, EVERY_MS);

  // ── The chart ─────────────────────────────────────────────────────────────────────────────

  function draw() {
    const scale = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    const nowMs = performance.now();
    const pad = { left: 30, right: 10, top: 10, bottom: 10 };
    const x = (atMs) => width - pad.right - ((nowMs - atMs) / SHOWN_MS) * (width - pad.left - pad.right);
    const y = (value) => height - pad.bottom - (value / 100) * (height - pad.top - pad.bottom);

    context.font = '11px system-ui, sans-serif';
    context.textAlign = 'right';
    context.textBaseline = 'middle';
    context.lineWidth = 1;
    for (const value of [0, 50, 100]) {
      context.strokeStyle = cssColour('--grid');
      context.beginPath();
      context.moveTo(pad.left, y(value));
      context.lineTo(width - pad.right, y(value));
      context.stroke();
      context.fillStyle = cssColour('--quiet');
      context.fillText(String(value), pad.left - 6, y(value));
    }
    context.lineWidth = 2;
    context.lineJoin = 'round';
    for (const [name, line] of lines) {
      while (line.length > 0 && nowMs - line[0].atMs > SHOWN_MS) line.shift();
      if (line.length === 0) lines.delete(name);
      context.strokeStyle = context.fillStyle = cssColour(`--p${colourOf(name)}`);
      context.beginPath();
      let lastMs = -Infinity;
      for (const { atMs, value } of line) {
        if (atMs - lastMs > HOLE_MS) context.moveTo(x(atMs), y(value));
        else context.lineTo(x(atMs), y(value));
        lastMs = atMs;
      }
      context.stroke();
      const last = line.at(-1);
      if (last === undefined) continue;
      context.beginPath();
      context.arc(x(last.atMs), y(last.value), 3, 0, 7);
      context.fill();
    }
    const chips = [...lines].map(([name, line]) =>
      element('li', colourClass(name), `${name} ${Math.round(line.at(-1).value)}`),
    );
    legend.replaceChildren(...chips);
  }
  setInterval(draw, EVERY_MS / 4);
  new ResizeObserver(draw).observe(canvas);
  onTheme(draw);
}
