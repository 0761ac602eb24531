// Progress: says on stderr what is measured now, what came out, and how long the rest will take.

export class Progress {
  readonly #nominal: readonly number[];
  readonly #startedAt = performance.now();
  #done = 0;

  /** @param nominalSeconds how long each step should take, in order */
  constructor(nominalSeconds: readonly number[]) {
    this.#nominal = nominalSeconds;
  }

  begin(step: string): void {
    process.stderr.write(`[${this.#left()} left]  ${step}`);
  }

  warn(warning: string): void {
    process.stderr.write(`  (${warning})`);
  }

  end(result: string): void {
    this.#done += 1;
    process.stderr.write(`  ${result === '' ? 'failed' : result}\n`);
  }

  /** The nominal rest, corrected by how the steps so far went. */
  #left(): string {
    const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
    const past = sum(this.#nominal.slice(0, this.#done));
    const elapsed = (performance.now() - this.#startedAt) / 1000;
    const seconds = sum(this.#nominal.slice(this.#done)) * (past > 0 ? elapsed / past : 1);
    const minutes = Math.floor(seconds / 60);
    return `${minutes}:${String(Math.floor(seconds % 60)).padStart(2, '0')}`;
  }
}
