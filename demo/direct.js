// One to one: messages to a user, on whatever gateway that is.

import { append, clock, colourClass, element } from './people.js';

/** Shows the messages with one other. Returns what takes the names of those who are here. */
export function startDirect(client) {
  const peers = document.getElementById('peers');
  const list = document.getElementById('letters');
  const partner = document.getElementById('with');
  const form = document.getElementById('write');
  const input = document.getElementById('letter');
  const button = form.querySelector('button');
  /** By name: the lines, and how many are unread. */
  const talks = new Map();
  let here = [];
  let chosen;

  const talkWith = (name) => {
    const talk = talks.get(name) ?? { lines: [], unread: 0 };
    talks.set(name, talk);
    return talk;
  };

  function write(name, line) {
    const talk = talkWith(name);
    talk.lines.push(line);
    if (talk.lines.length > 100) talk.lines.shift();
    if (name === chosen) append(list, line);
  }

  function choose(name) {
    chosen = name;
    const talk = talkWith(name);
    talk.unread = 0;
    list.replaceChildren(...talk.lines);
    list.scrollTop = list.scrollHeight;
    partner.textContent = `with ${name}`;
    input.disabled = button.disabled = false;
    input.placeholder = `Only ${name} will read this…`;
    show();
  }

  function show() {
    const names = [...new Set([...here, ...talks.keys()])].sort();
    const focused = document.activeElement?.closest('#peers button')?.value;
    const chips = names.map((name) => {
      const chip = element('button', colourClass(name), name);
      chip.type = 'button';
      chip.value = name;
      chip.setAttribute('aria-pressed', String(name === chosen));
      const { unread = 0 } = talks.get(name) ?? {};
      if (unread > 0)
        chip.append(element('span', 'badge', String(unread)), element('span', 'hidden', ' unread'));
      chip.addEventListener('click', () => {
        choose(name);
        input.focus();
      });
      return chip;
    });
    peers.replaceChildren(
      ...(chips.length > 0 ? chips : [element('span', 'quiet', 'Nobody else is here: open a second tab.')]),
    );
    // Who was on a name with the keyboard stays on it.
    for (const chip of chips) if (chip.value === focused) chip.focus();
  }

  client.on('direct', ({ from, data }) => {
    if (from === undefined || typeof data?.text !== 'string') return;
    const line = element(
      'li',
      colourClass(from),
      element('span', 'who', from),
      clock(),
      element('span', 'text', data.text),
    );
    write(from, line);
    if (chosen === undefined) choose(from);
    else if (from !== chosen) {
      talkWith(from).unread += 1;
      show();
    }
  });

  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const text = input.value.trim();
    const to = chosen;
    if (text === '' || to === undefined) return;
    input.value = '';
    const said = element('span', 'text', text);
    const line = element(
      'li',
      `mine pending ${colourClass(client.user ?? '')}`,
      element('span', 'who', 'you'),
      clock(),
      said,
    );
    write(to, line);
    try {
      await client.sendTo(to, { text });
      line.classList.remove('pending');
    } catch (error) {
      line.classList.replace('pending', 'failed');
      said.append(` – not sent (${error.code})`);
    }
  });

  show();
  return (names) => {
    here = names;
    show();
  };
}
