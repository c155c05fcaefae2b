/** The pages for people, taken apart: fenced blocks, links, anchors. */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export const root: string = fileURLToPath(new URL("../../", import.meta.url));

export interface Page {
  /** Path from the root. */
  readonly path: string;
  readonly text: string;
}

export interface Block {
  /** `docs/guide/layouts.md:12`: where its first line stands. */
  readonly place: string;
  /** The words after the fence, such as `ts run`. */
  readonly info: string;
  readonly text: string;
}

export function pages(): readonly Page[] {
  const docs = readdirSync(`${root}docs`, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".md"))
    .map((path) => `docs/${path}`);
  return ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", ...docs.toSorted()]
    .filter((path) => existsSync(`${root}${path}`))
    .map((path) => ({ path, text: readFileSync(`${root}${path}`, "utf8") }));
}

/** The fenced blocks of a page, in order. */
export function blocksOf({ path, text }: Page): readonly Block[] {
  const lines = text.split("\n");
  const blocks: Block[] = [];
  let open: { readonly line: number; readonly fence: string; readonly info: string } | undefined;
  lines.forEach((line, i) => {
    const match = /^(`{3,})(.*)$/.exec(line);
    if (match === null) return;
    const [, fence = "", info = ""] = match;
    if (open === undefined) open = { line: i, fence, info: info.trim() };
    else if (fence === open.fence && info === "") {
      const inside = lines.slice(open.line + 1, i).join("\n");
      blocks.push({ place: `${path}:${open.line + 2}`, info: open.info, text: `${inside}\n` });
      open = undefined;
    }
  });
  return blocks;
}

/** The targets of the Markdown links outside of code, without those to other sites. */
export function relativeLinks({ text }: Page): readonly string[] {
  const prose = withoutFences(text).replace(/`[^`]*`/g, "");
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target]) => target as string)
    .filter((target) => !/^[a-z]+:/.test(target));
}

/** The anchors of the headings, as GitHub makes them. */
export function anchorsOf({ text }: Page): readonly string[] {
  return [...withoutFences(text).matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
    (heading as string)
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );
}

function withoutFences(text: string): string {
  return text.replace(/^(`{3,})[\s\S]*?^\1$/gm, "");
}
