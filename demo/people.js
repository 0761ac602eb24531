// People: a name and a colour for everybody.

const COLOURS = 8;
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
  const name = asked ?? sessionStorage.getItem('name') ?? `${random}-${Math.floor(10 + Math.random() * 90)}`;
  keepName(name);
  return name;
}

/** Keeps a name for this tab alone, so that two tabs are two people. */
export function keepName(name) {
  sessionStorage.setItem('name', name);
}

/** The number of the colour that a name has on every page. */
export function colourOf(name) {
  let hash = 7;
  for (const character of name) hash = (hash * 31 + character.charCodeAt(0)) >>> 0;
  return hash % COLOURS;
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

/** The time of day as an element. */
export function clock(atMs = Date.now()) {
  const time = element(
    'time',
    '',
    new Date(atMs).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' }),
  );
  time.dateTime = new Date(atMs).toISOString();
  return time;
}

/** Adds a line to a list that follows its end, unless somebody has scrolled back in it. */
export function append(list, line, limit = 300) {
  const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.append(line);
  while (list.children.length > limit) list.firstElementChild.remove();
  if (follows) list.scrollTop = list.scrollHeight;
}
