import fc from "fast-check";
import { expect, test } from "vitest";
import { UserError } from "../../src/base/errors.ts";
import type { Instruction, Program } from "../../src/program/program.ts";
import { assertPrograms, verifyPrograms } from "../../src/program/verify.ts";
import { scheduleKinds } from "../../src/schedule/schedule.ts";
import { type Edit, edited, stackedRows, twoDevices } from "./hand-made.ts";
import { choices, cuts, realPrograms } from "./real-programs.ts";

/** A planted fault: what it is, how to plant it, and all that must be said about it. */
type Case = readonly [fault: string, text: string, edits: readonly Edit[], messages: readonly string[]];

const messages: readonly Case[] = [
  [
    "a send without a receive, which is also a read of what never came",
    twoDevices,
    [["receive y[1.0] from 0 tag 1 item 1.0\n", ""]],
    [
      'device 1, instruction 6 (F above 1.0): reads "y[1.0]" before it is written (it never is)',
      'device 0, instruction 4 (send→1 #1 1.0): sends "y[1.0]", expected a receive with tag 1 on device 1, but there is none for it',
    ],
  ],
  [
    "a receive without a send",
    twoDevices,
    [["send dy[0.0] to 0 tag 2 item 0.0\n", ""]],
    [
      'device 0, instruction 6 (recv←1 #2 0.0): receives "dy[0.0]", expected a send with tag 2 on device 1, but there is none for it',
    ],
  ],
  [
    "a receive of another item",
    twoDevices,
    [["receive y[1.0] from 0 tag 1 item 1.0", "receive y[1.0] from 0 tag 1 item 0.0"]],
    [
      'device 1, instruction 6 (recv←0 #1 0.0): receives "y[1.0]" of item 0.0, but device 0, instruction 4 (send→1 #1 1.0) sends it for item 1.0',
    ],
  ],
  [
    "two receives with their tags exchanged",
    twoDevices,
    [
      ["receive y[1.0] from 0 tag 1 item 1.0", "receive y[1.0] from 0 tag 0 item 1.0"],
      ["receive y[0.0] from 0 tag 0 item 0.0", "receive y[0.0] from 0 tag 1 item 0.0"],
    ],
    [
      'device 1, instruction 6 (recv←0 #0 1.0): receives "y[1.0]", but device 0, instruction 1 (send→1 #0 0.0) sends "y[0.0]"',
      'device 1, instruction 6 (recv←0 #0 1.0): receives "y[1.0]" of item 1.0, but device 0, instruction 1 (send→1 #0 0.0) sends it for item 0.0',
      'device 1, instruction 0 (recv←0 #1 0.0): receives "y[0.0]", but device 0, instruction 4 (send→1 #1 1.0) sends "y[1.0]"',
      'device 1, instruction 0 (recv←0 #1 0.0): receives "y[0.0]" of item 0.0, but device 0, instruction 4 (send→1 #1 1.0) sends it for item 1.0',
    ],
  ],
  [
    "a receive into a buffer of another name and type",
    twoDevices,
    [["receive scale from 0 tag 4", "receive dy[0.0] from 0 tag 4"]],
    [
      'device 1, instruction 12 (recv←0 #4): writes "dy[0.0]", which instruction 5 (free dy[0.0]) freed',
      'device 1, instruction 13 (guard scale): reads "scale" before it is written (it never is)',
      'device 1, instruction 12 (recv←0 #4): receives "dy[0.0]", but device 0, instruction 13 (send→1 #4) sends "scale"',
      'device 1, instruction 12 (recv←0 #4): receives f32[2] into "dy[0.0]", but device 0, instruction 13 (send→1 #4) sends f32[]',
    ],
  ],
  [
    "devices that wait for each other",
    twoDevices,
    [
      [
        "send y[1.0] to 1 tag 1 item 1.0\nfree y[1.0]\nreceive dy[0.0] from 1 tag 2 item 0.0",
        "receive dy[0.0] from 1 tag 2 item 0.0\nsend y[1.0] to 1 tag 1 item 1.0\nfree y[1.0]",
      ],
      [
        "receive y[0.0] from 0 tag 0 item 0.0\nrun k0",
        "receive y[0.0] from 0 tag 0 item 0.0\nreceive y[1.0] from 0 tag 1 item 1.0\nrun k0",
      ],
      ["free dy[0.0]\nreceive y[1.0] from 0 tag 1 item 1.0\n", "free dy[0.0]\n"],
    ],
    [
      'device 0, instruction 4 (recv←1 #2 0.0): waits for ever for "dy[0.0]" from device 1, which waits at instruction 1 (recv←0 #1 1.0) (deadlock)',
      'device 1, instruction 1 (recv←0 #1 1.0): waits for ever for "y[1.0]" from device 0, which waits at instruction 4 (recv←1 #2 0.0) (deadlock)',
    ],
  ],
  [
    "a channel that would have to hold two messages",
    twoDevices,
    [
      ["send y[1.0] to 1 tag 1 item 1.0\n", "send y[1.0] to 1 tag 0 item 1.0\nsend rate to 1 tag 9\n"],
      ["receive y[1.0] from 0 tag 1 item 1.0\n", "receive y[1.0] from 0 tag 0 item 1.0\n"],
      [
        "receive y[0.0] from 0 tag 0 item 0.0",
        "receive rate from 0 tag 9\nfree rate\nreceive y[0.0] from 0 tag 0 item 0.0",
      ],
      ["buffer loss", "buffer rate: f32[] activation\nbuffer loss"],
    ],
    [
      'device 0, instruction 4 (send→1 #0 1.0): waits for ever for device 1 to take the message before "y[1.0]", which waits at instruction 0 (recv←0 #9) (deadlock)',
      'device 1, instruction 0 (recv←0 #9): waits for ever for "rate" from device 0, which waits at instruction 4 (send→1 #0 1.0) (deadlock)',
    ],
  ],
  [
    "an end of one device that the other does not know of",
    twoDevices,
    [["receive scale from 0 tag 4\nguard scale\n", "receive scale from 0 tag 4\n"]],
    [
      'device 1, instruction 14 (recv←0 #5): waits for ever when device 0 ends at its guard on "scale", expected a guard on it before this receive',
    ],
  ],
  [
    "a guard before the message that the other device's guard needs",
    twoDevices,
    [["send scale to 1 tag 4\nguard scale\n", "guard scale\nsend scale to 1 tag 4\n"]],
    [
      'device 1, instruction 12 (recv←0 #4): waits for ever when device 0 ends at its guard on "scale", expected a guard on it before this receive',
    ],
  ],
  [
    "an update without the guard that the other device has",
    twoDevices,
    [["send scale to 1 tag 4\nguard scale\n", "send scale to 1 tag 4\n"]],
    [
      'device 0, instruction 16 (send→1 #5): sends what nobody takes when device 1 ends at its guard on "scale", expected a guard on it before this send',
      'device 0, instruction 14 (U below): updates "w", expected a guard on "scale" before it as elsewhere',
    ],
  ],
];

const declarations: readonly Case[] = [
  [
    "a type that the kernel does not take",
    twoDevices,
    [["buffer rate: f32[] scalar", "buffer rate: f32[1] scalar"]],
    ['device 0, instruction 15 (U below): input "rate" of kernel k4 is f32[], but buffer "rate" is f32[1]'],
  ],
  [
    "an input too many",
    twoDevices,
    [["run k3 (grad:w)", "run k3 (grad:w, rate)"]],
    ["device 0, instruction 12 (U below): kernel k3 has 1 inputs, 2 buffers are given"],
  ],
  [
    "a kernel that means nothing",
    twoDevices,
    [["mul %0 %1 @below F", "mul %0 %7 @below F"]],
    ['device 0: kernel k0: node 0 (mul in group "below") uses %7 before it is defined'],
  ],
  [
    "a constant without a value",
    twoDevices,
    [["buffer rate: f32[] scalar", "buffer rate: f32[] constant"]],
    ['device 0: buffer 9 "rate": a constant needs a value'],
  ],
  [
    "a feed into something that is not data",
    twoDevices,
    [['feed x[1.0] = "x"', 'feed w = "x"']],
    [
      'device 0: the feed of "x" into "w": expected a data buffer, got parameter',
      'device 0, instruction 3 (F below 1.0): reads "x[1.0]", which no feed fills',
    ],
  ],
  [
    "a feed with too many indices",
    twoDevices,
    [["from [2]", "from [2,0]"]],
    ['device 0: the feed of "x" into "x[1.0]": expected one index for each dim of f32[2], got [2,0]'],
  ],
  [
    "a guard on more than one number",
    stackedRows,
    [["free y[*]", "guard grad:w\nfree y[*]"]],
    ['device 0, instruction 3 (guard grad:w): guards "grad:w", expected a scalar, got f32[2,2]'],
  ],
  [
    "views that share rows",
    stackedRows,
    [["activation rows 2", "activation rows 1"]],
    [
      'device 0: views "y[0.0]" and "y[1.0]" share rows 1 to 1 of "y[*]"',
      'device 0, instruction 1 (F only 1.0): writes "y[1.0]", which instruction 0 (F only 0.0) has written already',
      'device 0, instruction 2 (W only): reads "y[*]", of which row 3 is not written yet (it never is)',
    ],
  ],
  [
    "a view that leaves its owner",
    stackedRows,
    [["activation rows 2", "activation rows 3"]],
    [
      'device 0: buffer 5 "y[1.0]": rows 3 to 4 are not in "y[*]", which has 4',
      'device 0, instruction 2 (W only): reads "y[*]", of which row 2 is not written yet (it never is)',
    ],
  ],
  [
    "a view of other columns",
    stackedRows,
    [["buffer y[1.0]: f32[2,2]", "buffer y[1.0]: f32[2,1]"]],
    [
      'device 0: buffer 5 "y[1.0]": f32[2,1] cannot be rows of "y[*]", which is f32[4,2]',
      'device 0, instruction 1 (F only 1.0): output "y" of kernel k0 is f32[2,2], but buffer "y[1.0]" is f32[2,1]',
    ],
  ],
  [
    "a view of another kind than its owner",
    stackedRows,
    [["buffer y[1.0]: f32[2,2] activation", "buffer y[1.0]: f32[2,2] data"]],
    [
      'device 0: buffer 5 "y[1.0]": is data, but its owner "y[*]" is activation',
      'device 0, instruction 1 (F only 1.0): writes "y[1.0]", but data is never written by instructions',
    ],
  ],
  [
    "a view of a view",
    stackedRows,
    [["rows 2 of y[*]", "rows 0 of y[0.0]"]],
    [
      'device 0: buffer 5 "y[1.0]": is a view of "y[0.0]", which is itself a view',
      'device 0, instruction 2 (W only): reads "y[*]", of which row 2 is not written yet (it never is)',
      'device 0, instruction 1 (F only 1.0): "y[0.0]" is never freed',
      'device 0: W of group "only" on stage 0 runs 0 segments for item 1.0, expected 1 as for the other items',
    ],
  ],
  [
    "a buffer of no device",
    twoDevices,
    [["free y[1.0]\nsend dy[1.0]", "free #40\nsend dy[1.0]"]],
    ["device 1, instruction 9 (free #40): names buffer 40, but the buffers of this device are 0 to 6"],
  ],
  [
    "a device that does not exist",
    twoDevices,
    [["send y[1.0] to 1 tag 1", "send y[1.0] to 2 tag 1"]],
    ["device 0, instruction 4 (send→2 #1 1.0): names device 2, but the devices are 0 to 1"],
  ],
  [
    "a message to oneself",
    twoDevices,
    [["send y[1.0] to 1 tag 1", "send y[1.0] to 0 tag 1"]],
    ["device 0, instruction 4 (send→0 #1 1.0): exchanges a message with its own device"],
  ],
  [
    "a kernel that does not exist",
    twoDevices,
    [["run k3 (grad:w)", "run k9 (grad:w)"]],
    ["device 0, instruction 12 (U below): runs kernel k9, but the program has 5 kernels"],
  ],
  [
    "the program of another device",
    twoDevices,
    [["program 1", "program 3"]],
    ["device 1: expected the program of device 1, got that of device 3"],
  ],
];

const buffers: readonly Case[] = [
  [
    "a read before the write",
    twoDevices,
    [
      [
        "run k0 (w, x[0.0]) -> (y[0.0]) F stage 0 item 0.0 @below\nsend y[0.0] to 1 tag 0 item 0.0",
        "send y[0.0] to 1 tag 0 item 0.0\nrun k0 (w, x[0.0]) -> (y[0.0]) F stage 0 item 0.0 @below",
      ],
    ],
    [
      'device 0, instruction 0 (send→1 #0 0.0): reads "y[0.0]" before it is written by instruction 1 (F below 0.0)',
    ],
  ],
  [
    "data that is not fed",
    twoDevices,
    [['feed x[1.0] = "x" from [2]\n', ""]],
    ['device 0, instruction 3 (F below 1.0): reads "x[1.0]", which no feed fills'],
  ],
  [
    "data that is fed twice",
    twoDevices,
    [['feed x[1.0] = "x" from [2]', 'feed x[1.0] = "x" from [2]\nfeed x[1.0] = "x" from [0]']],
    ['device 0: "x[1.0]" is fed twice, the second time from "x"'],
  ],
  [
    "rows that nobody writes",
    stackedRows,
    [["run k0 (x[1.0]) -> (y[1.0]) F stage 0 item 1.0 @only\n", ""]],
    ['device 0, instruction 1 (W only): reads "y[*]", of which row 2 is not written yet (it never is)'],
  ],
  [
    "a read after the free",
    twoDevices,
    [
      ["free dy[0.0]\nreceive dy[1.0]", "receive dy[1.0]"],
      ["receive dy[0.0] from 1 tag 2 item 0.0\n", "receive dy[0.0] from 1 tag 2 item 0.0\nfree dy[0.0]\n"],
    ],
    ['device 0, instruction 8 (W below 0.0): reads "dy[0.0]", which instruction 7 (free dy[0.0]) freed'],
  ],
  [
    "a write after the free",
    twoDevices,
    [["-> (y[1.0]) F stage 0 item 1.0", "-> (y[0.0]) F stage 0 item 1.0"]],
    [
      'device 0, instruction 3 (F below 1.0): writes "y[0.0]", which instruction 2 (free y[0.0]) freed',
      'device 0, instruction 4 (send→1 #1 1.0): reads "y[1.0]" before it is written (it never is)',
    ],
  ],
  [
    "a second free",
    twoDevices,
    [["free y[0.0]\nrun k0 (w, x[1.0])", "free y[0.0]\nfree y[0.0]\nrun k0 (w, x[1.0])"]],
    [
      'device 0, instruction 3 (free y[0.0]): frees "y[0.0]", which instruction 2 (free y[0.0]) has freed already',
    ],
  ],
  [
    "no free",
    twoDevices,
    [["free y[0.0]\nrun k0 (w, x[1.0])", "run k0 (w, x[1.0])"]],
    ['device 0, instruction 0 (F below 0.0): "y[0.0]" is never freed'],
  ],
  [
    "a free before the write",
    twoDevices,
    [
      ["run k0 (w, x[1.0])", "free dy[1.0]\nrun k0 (w, x[1.0])"],
      [
        "run k2 (dy[1.0], x[1.0], grad:w) -> (grad:w) W stage 0 item 1.0 @below\nfree dy[1.0]\n",
        "run k2 (dy[1.0], x[1.0], grad:w) -> (grad:w) W stage 0 item 1.0 @below\n",
      ],
    ],
    [
      'device 0, instruction 3 (free dy[1.0]): frees "dy[1.0]", which was never written',
      'device 0, instruction 10 (recv←1 #3 1.0): writes "dy[1.0]", which instruction 3 (free dy[1.0]) freed',
      'device 0, instruction 11 (W below 1.0): reads "dy[1.0]", which instruction 3 (free dy[1.0]) freed',
    ],
  ],
  [
    "a free of a view",
    stackedRows,
    [["free y[*]", "free y[1.0]"]],
    [
      'device 0, instruction 3 (free y[1.0]): frees "y[1.0]", expected its owner "y[*]"',
      'device 0, instruction 1 (F only 1.0): "y[*]" is never freed',
    ],
  ],
  [
    "a free of a parameter",
    twoDevices,
    [["free scale\nsend w", "free scale\nfree w\nsend w"]],
    ['device 0, instruction 17 (free w): frees "w", but only activations are freed, this is parameter'],
  ],
  [
    "a second write",
    twoDevices,
    [
      [
        "free y[0.0]\nsend dy[0.0]",
        "run k2 (y[0.0]) -> (dy[0.0]) B stage 1 item 0.0 @above\nfree y[0.0]\nsend dy[0.0]",
      ],
    ],
    [
      'device 1, instruction 3 (B above 0.0): writes "dy[0.0]", which instruction 2 (B above 0.0) has written already',
      "device 1, instruction 3 (B above 0.0): does again what instruction 2 (B above 0.0) has done",
    ],
  ],
  [
    "an output over an input",
    twoDevices,
    [["run k2 (y[1.0]) -> (dy[1.0])", "run k2 (y[1.0]) -> (y[1.0])"]],
    [
      'device 1, instruction 8 (B above 1.0): output "y[1.0]" shares memory with "y[1.0]" of the same run',
      'device 1, instruction 8 (B above 1.0): writes "y[1.0]", which instruction 6 (recv←0 #1 1.0) has written already',
      'device 1, instruction 10 (send→0 #3 1.0): reads "dy[1.0]" before it is written (it never is)',
    ],
  ],
  [
    "a sum that is begun again",
    twoDevices,
    [["run k2 (dy[1.0], x[1.0], grad:w) -> (grad:w)", "run k1 (dy[1.0], x[1.0]) -> (grad:w)"]],
    [
      'device 0, instruction 10 (W below 1.0): overwrites "grad:w", expected to add to what instruction 7 (W below 0.0) left there',
    ],
  ],
  [
    "a sum that is not begun",
    twoDevices,
    [["run k1 (dy[0.0], x[0.0]) -> (grad:w)", "run k2 (dy[0.0], x[0.0], grad:w) -> (grad:w)"]],
    [
      'device 0, instruction 7 (W below 0.0): reads "grad:w" before it is written by instruction 10 (W below 1.0)',
    ],
  ],
  [
    "a gradient that changes after its use",
    twoDevices,
    [
      ["run k3 (grad:w) -> (scale) U stage 0 @below\n", ""],
      ["receive dy[1.0] from 1", "run k3 (grad:w) -> (scale) U stage 0 @below\nreceive dy[1.0] from 1"],
    ],
    [
      'device 0, instruction 11 (W below 1.0): changes gradient "grad:w" after instruction 9 (U below) used it',
    ],
  ],
  [
    "written data",
    twoDevices,
    [["-> (y[1.0]) F stage 0 item 1.0", "-> (x[0.0]) F stage 0 item 1.0"]],
    [
      'device 0, instruction 3 (F below 1.0): writes "x[0.0]", but data is never written by instructions',
      'device 0, instruction 4 (send→1 #1 1.0): reads "y[1.0]" before it is written (it never is)',
    ],
  ],
  [
    "a parameter written in F",
    twoDevices,
    [["-> (y[1.0]) F stage 0 item 1.0", "-> (w) F stage 0 item 1.0"]],
    [
      'device 0, instruction 3 (F below 1.0): writes "w", but parameter is written by U, receives and all-gathers only',
      'device 0, instruction 4 (send→1 #1 1.0): reads "y[1.0]" before it is written (it never is)',
      'device 0, instruction 15 (U below): uses parameter "w" after its update by instruction 3 (F below 1.0)',
      'device 0, instruction 15 (U below): writes "w", which instruction 3 (F below 1.0) has written already',
      'device 0, instruction 3 (F below 1.0): updates "w", expected a guard on "scale" before it as elsewhere',
    ],
  ],
  [
    "a parameter sent before its update",
    twoDevices,
    [
      [
        "run k4 (w, grad:w, scale, rate) -> (w) U stage 0 @below\nfree scale\nsend w to 1 tag 5\n",
        "send w to 1 tag 5\nrun k4 (w, grad:w, scale, rate) -> (w) U stage 0 @below\nfree scale\n",
      ],
    ],
    ['device 0, instruction 15 (send→1 #5): sends parameter "w" before its update'],
  ],
  [
    "a parameter used after its update",
    twoDevices,
    [
      [
        "receive w from 0 tag 5\n",
        "receive w from 0 tag 5\nrun k1 (y[1.0], w, loss) -> (loss) F stage 1 item 1.0 @above\nfree y[1.0]\n",
      ],
      ["run k1 (y[1.0], w, loss) -> (loss) F stage 1 item 1.0 @above\nrun k2", "run k2"],
      ["item 1.0 @above\nfree y[1.0]\nsend", "item 1.0 @above\nsend"],
    ],
    [
      'device 1, instruction 14 (F above 1.0): uses parameter "w" after its update by instruction 13 (recv←0 #5)',
    ],
  ],
];

const work: readonly Case[] = [
  [
    "a weight gradient that lacks an item",
    twoDevices,
    [["run k2 (dy[1.0], x[1.0], grad:w) -> (grad:w) W stage 0 item 1.0 @below\n", ""]],
    [
      'device 0: W of group "below" on stage 0 runs 0 segments for item 1.0, expected 1 as for the other items',
    ],
  ],
  [
    "an item done twice",
    twoDevices,
    [
      [
        "run k2 (dy[1.0], x[1.0], grad:w) -> (grad:w) W stage 0 item 1.0 @below\n",
        "run k2 (dy[1.0], x[1.0], grad:w) -> (grad:w) W stage 0 item 1.0 @below\nrun k2 (dy[1.0], x[1.0], grad:w) -> (grad:w) W stage 0 item 1.0 @below\n",
      ],
    ],
    ["device 0, instruction 11 (W below 1.0): does again what instruction 10 (W below 1.0) has done"],
  ],
  [
    "joined items done twice",
    stackedRows,
    [
      [
        "run k1 (x[*], y[*]) -> (grad:w) W stage 0 @only\n",
        "run k1 (x[*], y[*]) -> (grad:w) W stage 0 @only\nrun k1 (x[*], y[*]) -> (grad:w) W stage 0 @only\n",
      ],
    ],
    [
      'device 0, instruction 3 (W only): overwrites "grad:w", expected to add to what instruction 2 (W only) left there',
      "device 0, instruction 3 (W only): does again what instruction 2 (W only) has done",
    ],
  ],
  [
    "a stage on two devices",
    twoDevices,
    [["run k2 (y[1.0]) -> (dy[1.0]) B stage 1", "run k2 (y[1.0]) -> (dy[1.0]) B stage 0"]],
    [
      "device 1, instruction 8 (B above 1.0): runs stage 0, which also runs on device 0",
      'device 1: B of group "above" on stage 1 runs 0 segments for item 1.0, expected 1 as for the other items',
      'device 1: B of group "above" on stage 0 runs 0 segments for item 0.0, expected 1 as for the other items',
    ],
  ],
  [
    "a parameter that nobody updates",
    twoDevices,
    [["run k4 (w, grad:w, scale, rate) -> (w) U stage 0 @below\n", ""]],
    [
      'device 0, instruction 16 (send→1 #5): sends parameter "w" before its update',
      'device 0: parameter "w" has a gradient, but no U run updates it: it must have one owner',
    ],
  ],
  [
    "a parameter that two devices update",
    twoDevices,
    [
      ["send w to 1 tag 5\n", ""],
      ["receive w from 0 tag 5\n", "run k2 (w) -> (w) U stage 1 @above\n"],
    ],
    ['device 1, instruction 15 (U above): updates "w", which device 0 updates too: it must have one owner'],
  ],
  [
    "a copy that is not renewed",
    twoDevices,
    [
      ["send w to 1 tag 5\n", ""],
      ["receive w from 0 tag 5\n", ""],
    ],
    ['device 1: holds parameter "w" of device 0, but never receives its new value'],
  ],
];

function messagesOf(programs: readonly Program[]): string[] {
  return verifyPrograms(programs).map(({ message }) => message);
}

test("programs without a fault pass", () => {
  expect(messagesOf(edited(twoDevices))).toEqual([]);
  expect(messagesOf(edited(stackedRows))).toEqual([]);
});

test.each(messages)("between devices, %s is refused", (_fault, text, edits, expected) => {
  expect(messagesOf(edited(text, ...edits))).toEqual(expected);
});

test.each(declarations)("among declarations, %s is refused", (_fault, text, edits, expected) => {
  expect(messagesOf(edited(text, ...edits))).toEqual(expected);
});

test.each(buffers)("among buffers, %s is refused", (_fault, text, edits, expected) => {
  expect(messagesOf(edited(text, ...edits))).toEqual(expected);
});

test.each(work)("in the work as a whole, %s is refused", (_fault, text, edits, expected) => {
  expect(messagesOf(edited(text, ...edits))).toEqual(expected);
});

test("a buffer's name belongs to one buffer", () => {
  const [program, other] = edited(twoDevices) as [Program, Program];
  const buffers = program.buffers.with(5, {
    ...(program.buffers[5] as Program["buffers"][number]),
    name: "y[0.0]",
  });
  expect(messagesOf([{ ...program, buffers }, other])).toContain(
    'device 0: buffer 5 "y[0.0]": another buffer of the program has the same name',
  );
});

test("a refusal lists all faults and shows the programs with an arrow at each", () => {
  const programs = edited(
    twoDevices,
    ["receive y[1.0] from 0 tag 1 item 1.0\n", ""],
    ["free y[0.0]\nrun k0 (w, x[1.0])", "free y[0.0]\nfree y[0.0]\nrun k0 (w, x[1.0])"],
  );
  expect(() => assertPrograms(programs)).toThrow(UserError);
  expect(() => assertPrograms(programs)).toThrow(
    [
      "the programs cannot run:",
      '  - device 0, instruction 3 (free y[0.0]): frees "y[0.0]", which instruction 2 (free y[0.0]) has freed already',
      '  - device 1, instruction 6 (F above 1.0): reads "y[1.0]" before it is written (it never is)',
      '  - device 0, instruction 5 (send→1 #1 1.0): sends "y[1.0]", expected a receive with tag 1 on device 1, but there is none for it',
      "",
      "device 0                   device 1",
      "-------------------------  -----------------------",
      " 0 F below 0.0",
      " 1 send→1 #0 0.0",
      " 3 free y[0.0] <-- HERE     0 recv←0 #0 0.0",
      " 4 F below 1.0              1 F above 0.0",
      " 5 send→1 #1 1.0 <-- HERE   2 B above 0.0",
      "                            4 send→0 #2 0.0",
      " 7 recv←1 #2 0.0            6 F above 1.0 <-- HERE",
      " 8 W below 0.0              7 B above 1.0",
      "                            9 send→0 #3 1.0",
      "10 recv←1 #3 1.0",
      "11 W below 1.0",
      "...                        ...",
    ].join("\n"),
  );
});

test.each(scheduleKinds)("the programs of schedule %s are proved for every placement and cut", (schedule) => {
  for (const choice of choices().filter((made) => made.schedule === schedule))
    expect({ choice, faults: messagesOf(realPrograms(choice)) }).toEqual({ choice, faults: [] });
});

test("the programs of an evaluation are proved", () => {
  for (const placement of [[0], [0, 1], [0, 1, 2], [0, 1, 0, 1]]) {
    const choice = {
      model: "tied",
      stages: cuts[placement.length - 1] ?? [],
      placement,
      evaluation: true,
    } as const;
    const programs = realPrograms({
      ...choice,
      microBatches: 1,
      chunks: 1,
      schedule: "naive",
      weights: "fused",
    });
    expect({ choice, faults: messagesOf(programs) }).toEqual({ choice, faults: [] });
  }
});

test("weight gradients that one micro-batch lacks are noticed, though no run of them names an item", () => {
  const joined = choices().filter(
    ({ model, weights, microBatches, chunks }) =>
      model === "tied" && weights === "per-micro-batch" && microBatches > 1 && chunks > 1,
  );
  expect(joined.length).toBeGreaterThan(0);
  for (const programs of joined.map(realPrograms)) {
    for (const [device, program] of programs.entries()) {
      for (const [index, instruction] of program.instructions.entries()) {
        if (instruction.kind !== "run" || instruction.phase !== "W") continue;
        const instructions = program.instructions.toSpliced(index, 1);
        expect(messagesOf(programs.with(device, { ...program, instructions }))).not.toEqual([]);
      }
    }
  }
});

test("removing or repeating any one instruction of proved programs is noticed", () => {
  const proved = choices()
    .filter(({ stages, microBatches }) => stages.length === 2 && microBatches > 1)
    .map(realPrograms);
  fc.assert(
    fc.property(
      fc.constantFrom(...proved),
      fc.nat(1),
      fc.nat(),
      fc.boolean(),
      (programs, device, at, isRepeat) => {
        const program = programs[device] as Program;
        const index = at % program.instructions.length;
        const instruction = program.instructions[index] as Instruction;
        if (isRepeat && instruction.kind === "guard") return;
        const instructions = program.instructions.toSpliced(
          index,
          isRepeat ? 0 : 1,
          ...(isRepeat ? [instruction] : []),
        );
        expect(messagesOf(programs.with(device, { ...program, instructions }))).not.toEqual([]);
      },
    ),
    { numRuns: 300 },
  );
});
