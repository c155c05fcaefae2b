/**
 * Programs whose devices meet in every kind of collective, with parts of any sizes. Device r is given a (its part) and b (all elements):
 *
 *     x = b + b, summed over all;   y = x + b, maximum over all;   part of the sum of all y, times a;   w = all parts
 */

import { parsePrograms } from "../../src/program/parse.ts";
import type { Program } from "../../src/program/program.ts";

export interface MeetingCase {
  readonly dtype: "f32" | "f64" | "i32";
  /** Elements of each device's part. */
  readonly sizes: readonly number[];
}

/** The text of the program of device `rank`. */
export function meetingText({ dtype, sizes }: MeetingCase, rank: number): string {
  const all = `${dtype}[${total(sizes)}]`;
  const own = `${dtype}[${sizes[rank]}]`;
  const group = `group 4 of ${[...sizes.keys()].join(",")}`;
  const parts = `sizes ${sizes.join(",")} ${group} F item 0.0`;
  const place = `F stage ${rank} item 0.0 @g${rank}`;
  const binary = (index: number, op: string, type: string) => `kernel k${index}
    %0: ${type} = input "a" {role: "data", group: "g${rank}"}
    %1: ${type} = input "b" {role: "data", group: "g${rank}"}
    %2: ${type} = ${op} %0 %1 @g${rank} F
    output "c" %2
`;
  return `program ${rank}
buffer a: ${own} data
buffer b: ${all} data
buffer x: ${all} activation
buffer y: ${all} activation
buffer part: ${own} activation
buffer own: ${own} activation
buffer w: ${all} parameter
feed a = "a${rank}" from [0]
feed b = "b${rank}" from [0]
run k0 (b, b) -> (x) ${place}
all-reduce sum x ${group} F item 0.0
run k0 (x, b) -> (y) ${place}
free x
all-reduce max y ${group} F item 0.0
reduce-scatter y into part ${parts}
free y
run k1 (part, a) -> (own) ${place}
free part
all-gather own into w ${parts}
free own
${binary(0, "add", all)}${binary(1, "mul", own)}`;
}

/** The programs of all devices. */
export function meetingPrograms(example: MeetingCase): readonly Program[] {
  return parsePrograms(example.sizes.map((_, rank) => meetingText(example, rank)).join("\n"));
}

export function total(sizes: readonly number[]): number {
  return sizes.reduce((sum, size) => sum + size, 0);
}
