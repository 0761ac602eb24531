// What a client must do after a close. Apart from the table of closes, whose texts a browser need not load.

/** What a client must do after a close: `stop` for good, `reconnect` after a jittered wait, or get a new
 * token first (`refresh`) and then reconnect. */
export type CloseAction = 'stop' | 'reconnect' | 'refresh';

/** The same as in the table of closes, which a test makes sure of. */
const actions: Readonly<Record<number, CloseAction>> = {
  1003: 'stop',
  1008: 'refresh',
  1009: 'stop',
  4402: 'refresh',
  4403: 'stop',
  4405: 'stop',
};

/** What a client must do after a close with this code. Codes that are not in the table, such as the 1006 of a
 * cut line, mean `reconnect`. */
export function actionAfter(code: number): CloseAction {
  return actions[code] ?? 'reconnect';
}
