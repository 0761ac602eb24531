// The nearest: which of the known names somebody who has mistyped one may have meant.

/** Names this much alike, in letters that were added, left out or taken for others, may be taken for each other. */
const MAX_DISTANCE = 2;

/** A name of fewer letters than this for each that is wrong is another name: NODE_NAME is not POD_NAME. */
const LETTERS_A_FAULT = 6;

/** The known name that is most like this one; undefined where none is much like it. */
export function nearest(name: string, known: Iterable<string>): string | undefined {
  let best: string | undefined;
  let least = Math.min(MAX_DISTANCE, Math.floor(name.length / LETTERS_A_FAULT)) + 1;
  for (const candidate of known) {
    if (Math.abs(candidate.length - name.length) >= least) continue;
    const found = distance(name, candidate);
    if (found < least) [best, least] = [candidate, found];
  }
  return best;
}

/** How many letters have to be added, left out or replaced to make the one the other (Levenshtein). */
function distance(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, at) => at);
  for (const [at, letter] of [...one].entries()) {
    const next = [at + 1];
    for (let column = 1; column <= other.length; column += 1) {
      const replaced = (row[column - 1] ?? 0) + (letter === other[column - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[column] ?? 0) + 1, (next[column - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[other.length] ?? 0;
}
