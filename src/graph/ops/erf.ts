/** The error function in float64; JavaScript has none. */

/**
 * erf(x) to full float64 precision: the Maclaurin series below 3, the continued fraction of erfc above.
 * Abramowitz & Stegun 7.1.6 and 7.1.14.
 */
export function erf(x: number): number {
  const size = Math.abs(x);
  if (Number.isNaN(x)) return x;
  if (size > 6) return Math.sign(x);
  const scale = (2 / Math.sqrt(Math.PI)) * Math.exp(-size * size);
  const value = size < 3 ? scale * series(size) : 1 - (scale / 2) * fraction(size);
  return Math.sign(x) * value;
}

/** Sum of 2^n x^(2n+1) / (1·3·...·(2n+1)): only positive terms, so nothing cancels. */
function series(x: number): number {
  let term = x;
  let total = x;
  for (let n = 1; term > total * 1e-17; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    total += term;
  }
  return total;
}

/** 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + ...)))). */
function fraction(x: number): number {
  let value = x;
  for (let n = 120; n >= 1; n--) value = x + n / 2 / value;
  return 1 / value;
}
