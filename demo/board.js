// The board: strokes on a durable channel, pointers on an ephemeral one.

import { colourClass, colourOf, cssColour, element, onTheme } from './people.js';

const STROKES = 'board:lobby';
const POINTERS = 'pointer:lobby';
const BEGINNING = '0-0';

const SEND_EVERY_MS = 50;
const POINTER_STAYS_MS = 6000;
const MAX_STROKES = 500;
const PEN_STEP = 0.02;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Shows the board. Places on it go from 0 to 1, so that it is the same on every screen. */
export function startBoard(client) {
  const canvas = document.getElementById('canvas');
  const layer = document.getElementById('pointers');
  const context = canvas.getContext('2d');
  const board = client.channel(STROKES);
  const pointing = client.channel(POINTERS);
  /** By its id: who draws it, and its points so far. */
  const strokes = new Map();
  const pointers = new Map();

  // ── Drawing ───────────────────────────────────────────────────────────────────────────────

  const at = ([x, y]) => [x * canvas.clientWidth, y * canvas.clientHeight];

  function draw({ colour, points }, from = 0) {
    context.strokeStyle = cssColour(`--p${colour}`);
    context.lineWidth = 3;
    context.lineCap = context.lineJoin = 'round';
    context.beginPath();
    context.moveTo(...at(points[from]));
    if (points.length === from + 1) context.lineTo(...at(points[from]));
    for (const point of points.slice(from + 1)) context.lineTo(...at(point));
    context.stroke();
  }

  function redraw() {
    const scale = devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * scale);
    canvas.height = Math.round(canvas.clientHeight * scale);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    for (const stroke of strokes.values()) draw(stroke);
    for (const pointer of pointers.values()) place(pointer);
  }

  /** Points of a stroke from its `from`th on. Those that are there already, as when this tab comes back and is told its
   * own strokes again, change nothing. */
  function extend(id, colour, from, points) {
    const stroke = strokes.get(id) ?? { colour, points: [] };
    const known = stroke.points.length;
    const fresh = points.slice(Math.max(0, known - from));
    if (fresh.length === 0) return;
    strokes.set(id, stroke);
    stroke.points.push(...fresh);
    draw(stroke, Math.max(0, known - 1));
    if (strokes.size > MAX_STROKES) strokes.delete(strokes.keys().next().value);
  }

  function clear() {
    strokes.clear();
    redraw();
  }

  board.subscribe(
    ({ data }) => {
      if (data?.clear === true) clear();
      else if (typeof data?.stroke === 'string' && isPoints(data.points)) {
        extend(data.stroke, Math.abs(Number(data.colour)) % 8 || 0, Number(data.from) || 0, data.points);
      }
    },
    { after: BEGINNING },
  );

  new ResizeObserver(redraw).observe(canvas);
  onTheme(redraw);

  document.getElementById('clear').addEventListener('click', () => {
    clear();
    board.publish({ clear: true }, { echo: false }).catch(() => {});
  });

  // ── My pen ────────────────────────────────────────────────────────────────────────────────

  const pen = { stroke: undefined, sent: 0, unsent: [], place: [0.5, 0.5], moved: false };

  /** The pen is drawn with at once; the others get the points together. */
  function trace(point) {
    extend(pen.stroke, colourOf(client.user ?? ''), pen.sent + pen.unsent.length, [point]);
    pen.unsent.push(point);
  }

  function down(point) {
    pen.stroke = `${client.user}/${Date.now().toString(36)}${Math.random().toString(36).slice(2, 6)}`;
    pen.sent = 0;
    trace(point);
  }

  function up() {
    send();
    pen.stroke = undefined;
  }

  function send() {
    if (pen.unsent.length > 0) {
      const points = pen.unsent.map(([x, y]) => [round(x), round(y)]);
      pen.unsent = [];
      const stroke = { stroke: pen.stroke, colour: colourOf(client.user ?? ''), from: pen.sent, points };
      pen.sent += points.length;
      board.publish(stroke, { echo: false }).catch(() => {});
    }
    if (pen.moved && client.state === 'open') {
      pen.moved = false;
      pointing.publish(pen.place.map(round), { echo: false }).catch(() => {});
    }
  }
  setInterval(send, SEND_EVERY_MS);

  const placeOf = ({ offsetX, offsetY }) => [
    clamp(offsetX / canvas.clientWidth),
    clamp(offsetY / canvas.clientHeight),
  ];

  canvas.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    down(placeOf(event));
  });
  canvas.addEventListener('pointermove', (event) => {
    pen.place = placeOf(event);
    pen.moved = true;
    if (pen.stroke === undefined) return;
    for (const step of event.getCoalescedEvents?.() ?? [event]) trace(placeOf(step));
  });
  for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, up);

  canvas.addEventListener('keydown', (event) => {
    const [right, below] = ARROWS[event.key] ?? [];
    if (event.key === ' ') {
      if (pen.stroke === undefined) down(pen.place);
      else up();
    } else if (right !== undefined) {
      pen.place = [clamp(pen.place[0] + right * PEN_STEP), clamp(pen.place[1] + below * PEN_STEP)];
      pen.moved = true;
      if (pen.stroke !== undefined) trace(pen.place);
    } else return;
    event.preventDefault();
    point(client.user ?? '', pen.place);
  });
  canvas.addEventListener('blur', () => {
    if (pen.stroke !== undefined) up();
    remove(client.user ?? '');
  });

  // ── Everybody's pointers ──────────────────────────────────────────────────────────────────

  function point(name, where) {
    let pointer = pointers.get(name);
    if (pointer === undefined) {
      const label = element('span', '', name);
      const box = element('div', colourClass(name), arrow(), label);
      layer.append(box);
      pointer = { box };
      pointers.set(name, pointer);
    }
    clearTimeout(pointer.timer);
    pointer.timer = setTimeout(() => remove(name), POINTER_STAYS_MS);
    pointer.where = where;
    place(pointer);
  }

  function place({ box, where }) {
    const [x, y] = at(where);
    box.style.transform = `translate(${x}px, ${y}px)`;
  }

  function remove(name) {
    pointers.get(name)?.box.remove();
    pointers.delete(name);
  }

  pointing.subscribe(({ from, data }) => {
    if (from !== undefined && isPoints([data])) point(from, data);
  });
}

/** Anybody may publish anything: what is no list of places is left alone. */
function isPoints(value) {
  const isPlace = (point) =>
    Array.isArray(point) && point.length === 2 && point.every((it) => it >= 0 && it <= 1);
  return Array.isArray(value) && value.length > 0 && value.every(isPlace);
}

function arrow() {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('width', '18');
  svg.setAttribute('height', '18');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('d', 'M1 1l5.5 14 2.2-6L15 7z');
  svg.append(path);
  return svg;
}

function clamp(value) {
  return Math.min(1, Math.max(0, value));
}

function round(value) {
  return Math.round(value * 1000) / 1000;
}
