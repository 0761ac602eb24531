// The demo page: puts its parts together.

import { startBoard } from './board.js';
import { startChat } from './chat.js';
import { openConnection, showConnection } from './connection.js';
import { startDash } from './dash.js';
import { startDirect } from './direct.js';
import { keepName, ownName } from './people.js';

const AWAY_MS = 5000;

const name = ownName();
const { client, kill, away } = openConnection(name);
showConnection(client);
startChat(client, startDirect(client));
startBoard(client);
startDash(client);

document.getElementById('kill').addEventListener('click', kill);
document.getElementById('away').addEventListener('click', () => away(AWAY_MS));

// Safari lets the keyboard scroll only what can be focused.
for (const list of document.querySelectorAll('.scroll')) list.tabIndex = 0;

const input = document.getElementById('name');
input.value = name;
document.getElementById('rename').addEventListener('submit', (event) => {
  event.preventDefault();
  keepName(input.value);
  const address = new URL(location.href);
  address.searchParams.delete('name');
  location.replace(address);
});
