// The chat: a durable channel, and who is in it.

import { append, clock, colourClass, element } from './people.js';

const CHANNEL = 'chat:lobby';
/** Before the first message: a new tab has all that is kept. */
const BEGINNING = '0-0';
const MAX_NAMED = 12;

/** Shows the chat. `changed` is told who is here. */
export function startChat(client, changed) {
  const list = document.getElementById('messages');
  const people = document.getElementById('people');
  const form = document.getElementById('say');
  const input = document.getElementById('text');
  const chat = client.channel(CHANNEL);
  const here = new Set();

  list.setAttribute('aria-busy', 'true');
  const { ready } = chat.subscribe(
    ({ from, data }) => {
      if (typeof data?.text !== 'string' || from === undefined) return;
      const mine = from === client.user ? 'mine' : '';
      const who = element('span', 'who', from);
      append(
        list,
        element(
          'li',
          `${mine} ${colourClass(from)}`,
          who,
          clock(data.at),
          element('span', 'text', data.text),
        ),
      );
    },
    { after: BEGINNING },
  );
  let entered = false;
  ready.then(
    () => {
      entered = true;
      list.removeAttribute('aria-busy');
    },
    () => {},
  );

  client.on('recovery', ({ channel }) => {
    if (channel === CHANNEL && entered) append(list, element('li', 'mark', 'back – what was missed follows'));
  });
  client.on('gap', ({ channel, reason }) => {
    if (channel === CHANNEL) append(list, element('li', 'mark gap', `messages may be missing (${reason})`));
  });

  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (text === '') return;
    input.value = '';
    // Until the gateway has it: while there is no connection, that is when there is one again.
    const line = element('li', 'pending', `${text} – waiting to be sent`);
    const waiting = setTimeout(() => append(list, line), 150);
    try {
      await chat.publish({ text, at: Date.now() });
      line.remove();
    } catch (error) {
      append(list, element('li', 'failed', `Not sent (${error.code}): ${text}`));
      line.remove();
    } finally {
      clearTimeout(waiting);
    }
  });

  const show = () => {
    const names = [...here].sort();
    const chips = names.slice(0, MAX_NAMED).map((name) => {
      const you = name === client.user ? ' (you)' : '';
      return element('li', colourClass(name), `${name}${you}`);
    });
    if (names.length > MAX_NAMED) chips.push(element('li', 'quiet', `and ${names.length - MAX_NAMED} more`));
    people.replaceChildren(...chips);
    changed(names.filter((name) => name !== client.user));
  };
  client.on('presence', ({ channel, joined, left }) => {
    if (channel !== CHANNEL) return;
    for (const name of joined) here.add(name);
    for (const name of left) here.delete(name);
    show();
  });
  // Events tell only of changes, so after each (re)connection the whole list is asked for.
  const ask = async () => {
    try {
      const { members } = await chat.presence();
      here.clear();
      for (const name of members) here.add(name);
      show();
    } catch (error) {
      if (error.retryable) setTimeout(ask, 2000);
    }
  };
  client.on('state', ({ state }) => {
    if (state === 'open') ask();
  });
  client.on('move', ask);
}
