/**
 * A step of two devices, small enough to read: y = w·x below, loss = Σ y·w above (so that both hold w), two items, forward then
 * backward. Tests plant faults in its text.
 */

import { parsePrograms } from "../../src/program/parse.ts";
import type { Program } from "../../src/program/program.ts";

export const twoDevices: string = `program 0
buffer w: f32[2] parameter
buffer x[0.0]: f32[2] data
buffer x[1.0]: f32[2] data
buffer y[0.0]: f32[2] activation
buffer y[1.0]: f32[2] activation
buffer dy[0.0]: f32[2] activation
buffer dy[1.0]: f32[2] activation
buffer grad:w: f32[2] gradient
buffer scale: f32[] activation
buffer rate: f32[] scalar
feed x[0.0] = "x" from [0]
feed x[1.0] = "x" from [2]
run k0 (w, x[0.0]) -> (y[0.0]) F stage 0 item 0.0 @below
send y[0.0] to 1 tag 0 item 0.0
free y[0.0]
run k0 (w, x[1.0]) -> (y[1.0]) F stage 0 item 1.0 @below
send y[1.0] to 1 tag 1 item 1.0
free y[1.0]
receive dy[0.0] from 1 tag 2 item 0.0
run k1 (dy[0.0], x[0.0]) -> (grad:w) W stage 0 item 0.0 @below
free dy[0.0]
receive dy[1.0] from 1 tag 3 item 1.0
run k2 (dy[1.0], x[1.0], grad:w) -> (grad:w) W stage 0 item 1.0 @below
free dy[1.0]
run k3 (grad:w) -> (scale) U stage 0 @below
send scale to 1 tag 4
guard scale
run k4 (w, grad:w, scale, rate) -> (w) U stage 0 @below
free scale
send w to 1 tag 5
kernel k0
    %0: f32[2] = input "w" {role: "parameter", group: "below"}
    %1: f32[2] = input "x" {role: "data", group: "below"}
    %2: f32[2] = mul %0 %1 @below F
    output "y" %2
kernel k1
    %0: f32[2] = input "dy" {role: "data", group: "below"}
    %1: f32[2] = input "x" {role: "data", group: "below"}
    %2: f32[2] = mul %0 %1 @below W
    output "grad" %2
kernel k2
    %0: f32[2] = input "dy" {role: "data", group: "below"}
    %1: f32[2] = input "x" {role: "data", group: "below"}
    %2: f32[2] = input "total" {role: "gradient", group: "below"}
    %3: f32[2] = mul %0 %1 @below W
    %4: f32[2] = add %2 %3 @below W
    output "grad" %4
kernel k3
    %0: f32[2] = input "grad" {role: "gradient", group: "below"}
    %1: f32[] = sum %0 {dims: [0], keep: false} @below U
    output "scale" %1
kernel k4
    %0: f32[2] = input "w" {role: "parameter", group: "below"}
    %1: f32[2] = input "grad" {role: "gradient", group: "below"}
    %2: f32[] = input "scale" {role: "data", group: "below"}
    %3: f32[] = input "rate" {role: "scalar", group: "below"}
    %4: f32[] = mul %2 %3 @below U
    %5: f32[2] = mul %1 %4 @below U
    %6: f32[2] = sub %0 %5 @below U
    output "w" %6

program 1
buffer w: f32[2] parameter
buffer y[0.0]: f32[2] activation
buffer y[1.0]: f32[2] activation
buffer dy[0.0]: f32[2] activation
buffer dy[1.0]: f32[2] activation
buffer loss: f32[] result
buffer scale: f32[] activation
receive y[0.0] from 0 tag 0 item 0.0
run k0 (y[0.0], w) -> (loss) F stage 1 item 0.0 @above
run k2 (y[0.0]) -> (dy[0.0]) B stage 1 item 0.0 @above
free y[0.0]
send dy[0.0] to 0 tag 2 item 0.0
free dy[0.0]
receive y[1.0] from 0 tag 1 item 1.0
run k1 (y[1.0], w, loss) -> (loss) F stage 1 item 1.0 @above
run k2 (y[1.0]) -> (dy[1.0]) B stage 1 item 1.0 @above
free y[1.0]
send dy[1.0] to 0 tag 3 item 1.0
free dy[1.0]
receive scale from 0 tag 4
guard scale
free scale
receive w from 0 tag 5
kernel k0
    %0: f32[2] = input "y" {role: "data", group: "above"}
    %1: f32[2] = input "w" {role: "parameter", group: "above"}
    %2: f32[2] = mul %0 %1 @above F
    %3: f32[] = sum %2 {dims: [0], keep: false} @above F
    output "loss" %3
kernel k1
    %0: f32[2] = input "y" {role: "data", group: "above"}
    %1: f32[2] = input "w" {role: "parameter", group: "above"}
    %2: f32[] = input "total" {role: "gradient", group: "above"}
    %3: f32[2] = mul %0 %1 @above F
    %4: f32[] = sum %3 {dims: [0], keep: false} @above F
    %5: f32[] = add %2 %4 @above F
    output "loss" %5
kernel k2
    %0: f32[2] = input "y" {role: "data", group: "above"}
    %1: f32[2] = add %0 %0 @above B
    output "dy" %1
`;

/** Rows of one buffer: the weight gradient of two items as one product. */
export const stackedRows: string = `program 0
buffer x[*]: f32[4,2] data
buffer x[0.0]: f32[2,2] data rows 0 of x[*]
buffer x[1.0]: f32[2,2] data rows 2 of x[*]
buffer y[*]: f32[4,2] activation
buffer y[0.0]: f32[2,2] activation rows 0 of y[*]
buffer y[1.0]: f32[2,2] activation rows 2 of y[*]
buffer grad:w: f32[2,2] gradient
feed x[0.0] = "x" from [0,0]
feed x[1.0] = "x" from [2,0]
run k0 (x[0.0]) -> (y[0.0]) F stage 0 item 0.0 @only
run k0 (x[1.0]) -> (y[1.0]) F stage 0 item 1.0 @only
run k1 (x[*], y[*]) -> (grad:w) W stage 0 @only
free y[*]
kernel k0
    %0: f32[2,2] = input "x" {role: "data", group: "only"}
    %1: f32[2,2] = add %0 %0 @only F
    output "y" %1
kernel k1
    %0: f32[4,2] = input "x" {role: "data", group: "only"}
    %1: f32[4,2] = input "y" {role: "data", group: "only"}
    %2: f32[2,2] = matmul %0 %1 {transposeA: true, transposeB: false} @only W
    output "grad" %2
`;

/** One replacement in the text: what is there, and what comes instead. */
export type Edit = readonly [from: string, to: string];

/** The programs of `text` after some edits; each must fit in one place. */
export function edited(text: string, ...edits: readonly Edit[]): readonly Program[] {
  const changed = edits.reduce((before, [from, to]) => {
    if (before.split(from).length !== 2)
      throw new Error(`"${from}" is there ${before.split(from).length - 1} times`);
    return before.replace(from, () => to);
  }, text);
  return parsePrograms(changed);
}
