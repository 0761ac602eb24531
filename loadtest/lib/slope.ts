// The slope of a line fitted to samples by least squares.

/** How much y grows for each x; undefined where the samples have no two different x. */
export function slopeOf(samples: readonly (readonly [x: number, y: number])[]): number | undefined {
  const mean = (index: 0 | 1) => samples.reduce((sum, sample) => sum + sample[index], 0) / samples.length;
  const [meanX, meanY] = [mean(0), mean(1)];
  let [over, under] = [0, 0];
  for (const [x, y] of samples) {
    over += (x - meanX) * (y - meanY);
    under += (x - meanX) ** 2;
  }
  return under > 0 ? over / under : undefined;
}
