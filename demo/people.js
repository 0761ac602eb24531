// People: a name and a colour for everybody.

const COLOURS = 8;
const MAX_NAME_LENGTH = 24;
const NAMES = [
  'otter',
  'heron',
  'crab',
  'gull',
  'seal',
  'tern',
  'squid',
  'whale',
  'limpet',
  'plaice',
  'eider',
  'kelp',
];

/** This tab's name: what the address says (`?name=`), what it was before, or one that is made up. */
export function ownName() {
  const asked = new URLSearchParams(location.search).get('name');
  const random = NAMES[Math.floor(Math.random() * NAMES.length)];
  const wanted = asked ?? sessionStorage.getItem('name') ?? '';
  const name = wanted.replaceAll(/[^A-Za-z0-9._~@-]/g, '').slice(0, MAX_NAME_LENGTH);
  keepName(name || `${random}-${Math.floor(10 + Math.random() * 90)}`);
  return sessionStorage.getItem('name');
}

/** Keeps a name for this tab alone, so that two tabs are two people. */
export function keepName(name) {
  sessionStorage.setItem('name', name);
}

/** The number of the colour that a name has on every page. */
export function colourOf(name) {
  // FNV-1a: names that differ little get colours that differ.
  let hash = 2_166_136_261;
  for (const character of name) hash = Math.imul(hash ^ character.charCodeAt(0), 16_777_619) >>> 0;
  return (hash >>> 5) % COLOURS;
}

/** The class that gives an element and all in it somebody's colour. */
export function colourClass(name) {
  return `p${colourOf(name)}`;
}

/** The colour itself, in the theme of the moment, for canvases. */
export function cssColour(variable) {
  return getComputedStyle(document.documentElement).getPropertyValue(variable).trim();
}

/** Calls `changed` when the theme changes. */
export function onTheme(changed) {
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);
}

/** An element with its class and children. */
export function element(tag, className = '', ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}

/** The time of day as an element; now, where what was given is no time. */
export function clock(atMs) {
  const given = new Date(Number(atMs));
  const date = atMs === undefined || Number.isNaN(given.getTime()) ? new Date() : given;
  const time = element('time', '', date.toLocaleTimeString('en-GB'));
  time.dateTime = date.toISOString();
  return time;
}

/** Adds a line to a list that follows its end, unless somebody has scrolled back in it. */
export function append(list, line, limit = 300) {
  const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.append(line);
  while (list.children.length > limit) list.firstElementChild.remove();
  if (follows) list.scrollTop = list.scrollHeight;
}
