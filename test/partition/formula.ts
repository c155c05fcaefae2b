/** Formulas as pages write them: `2·batch·(time − 1)`, `⌊kernel/2⌋`, `features²`. */

/** The value of a formula, with the names in it standing for numbers. Throws an error that names what it cannot read. */
export function evaluateFormula(text: string, names: { readonly [name: string]: number }): number {
  const tokens = text.match(/[a-zA-Z]\w*|\d+|\S/g) ?? [];
  let at = 0;
  const take = (token: string): boolean => {
    if (tokens[at] !== token) return false;
    at++;
    return true;
  };
  const fail = (): never => {
    throw new Error(`cannot read "${tokens[at] ?? "the end"}" in the formula ${text}`);
  };
  const inside = (end: string): number => {
    const value = sum();
    return take(end) ? value : fail();
  };
  const factor = (): number => {
    let value: number;
    if (take("(")) value = inside(")");
    else if (take("⌊")) value = Math.floor(inside("⌋"));
    else {
      const token = tokens[at] ?? "";
      value = /^\d/.test(token) ? Number(token) : (names[token] ?? fail());
      at++;
    }
    return take("²") ? value * value : value;
  };
  const product = (): number => {
    let value = factor();
    for (;;) {
      if (take("·")) value *= factor();
      else if (take("/")) value /= factor();
      else return value;
    }
  };
  const sum = (): number => {
    let value = product();
    for (;;) {
      if (take("+")) value += product();
      else if (take("−")) value -= product();
      else return value;
    }
  };
  const value = sum();
  return at === tokens.length ? value : fail();
}
