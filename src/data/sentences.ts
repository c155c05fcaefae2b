/**
 * Plain text to sentences of tokens, in the spirit of the Penn Treebank text that MXNet's LSTM example trains on:
 * lower case, punctuation as tokens of its own, one sentence at a time.
 *
 *     "Call me Ishmael. Mr. Peleg's gone!"  →  call me ishmael .  |  mr . peleg's gone !
 */

export interface SentenceOptions {
  readonly lowerCase: boolean;
  /** Punctuation as own tokens, left out, or left on its word (split at white space only). */
  readonly punctuation: "tokens" | "drop" | "keep";
  /** Where sentences end: at . ! ? and blank lines, or at every line break. */
  readonly sentences: "punctuation" | "line";
}

/** At least one token, and the line (from 1) of the text on which the sentence starts. */
export interface Sentence {
  readonly tokens: readonly string[];
  readonly line: number;
}

/** A run of characters without white space, and the number of line breaks before it. */
interface Word {
  readonly text: string;
  readonly breaks: number;
  /** White space before it holds a blank line. */
  readonly blank: boolean;
}

/** Specials, words with inner apostrophes or hyphens, numbers, runs of one punctuation mark, single marks. */
const tokenPattern =
  /<unk>|<eos>|\p{L}[\p{L}\p{M}\p{N}]*(?:['-]\p{L}[\p{L}\p{M}\p{N}]*)*|\p{N}+(?:[.,:]\p{N}+)*|([^\p{L}\p{N}])\1*/gu;
const hasLetterOrDigit = /[\p{L}\p{N}]/u;
const closesSentence = /[.!?…]["')\]»”]*$/u;
const startsLowerCase = /^[^\p{L}\p{N}]*\p{Ll}/u;
/** Titles and initials, whose point ends no sentence; "I." is a word. */
const abbreviation =
  /^[^\p{L}]*(?:[A-HJ-Z]|Mrs?|Ms|Dr|St|Prof|Rev|Hon|Capt|Col|Gen|Lieut|[JS]r|vs|etc|viz)\.$/u;

/**
 * The sentences of the text, none of them empty; curly apostrophes and quotes become straight ones. A lower-case
 * letter after . ! ? continues the sentence, unless the whole text is in lower case.
 */
export function splitSentences(text: string, options: SentenceOptions): Sentence[] {
  const words = splitWords(straightenQuotes(text));
  const starts = startRule(options.sentences, text);
  const sentences: Sentence[] = [];
  let tokens: string[] = [];
  let start = 1;
  let line = 1;
  const finish = (): void => {
    if (tokens.length > 0) sentences.push({ tokens, line: start });
    tokens = [];
  };
  for (const [i, word] of words.entries()) {
    line += word.breaks;
    if (starts(words[i - 1], word)) finish();
    if (tokens.length === 0) start = line;
    for (const token of tokensOf(word.text, options)) tokens.push(token);
  }
  finish();
  return sentences;
}

function startRule(
  mode: SentenceOptions["sentences"],
  text: string,
): (before: Word | undefined, word: Word) => boolean {
  if (mode === "line") return startsLine;
  return /\p{Lu}/u.test(text) ? startsCased : startsUncased;
}

function startsLine(_before: Word | undefined, word: Word): boolean {
  return word.breaks > 0;
}

function startsUncased(before: Word | undefined, word: Word): boolean {
  if (word.blank || before === undefined) return true;
  return closesSentence.test(before.text) && !abbreviation.test(before.text);
}

function startsCased(before: Word | undefined, word: Word): boolean {
  return word.blank || (startsUncased(before, word) && !startsLowerCase.test(word.text));
}

function tokensOf(word: string, options: SentenceOptions): readonly string[] {
  const cased = options.lowerCase ? word.toLowerCase() : word;
  if (options.punctuation === "keep") return [cased];
  const tokens = cased.match(tokenPattern) ?? [];
  return options.punctuation === "tokens" ? tokens : tokens.filter((token) => hasLetterOrDigit.test(token));
}

function splitWords(text: string): Word[] {
  return Array.from(text.matchAll(/(\s*)(\S+)/gu), ([, space = "", word = ""]) => {
    const breaks = space.replaceAll("\r\n", "\n").split(/[\n\r\u2028\u2029]/u).length - 1;
    return { text: word, breaks, blank: breaks > 1 };
  });
}

function straightenQuotes(text: string): string {
  return text.replaceAll(/[‘’]/gu, "'").replaceAll(/[“”]/gu, '"');
}
