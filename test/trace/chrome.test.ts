import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { printChromeTrace, toChromeTrace } from "../../src/trace/chrome.ts";
import { parseChromeTrace } from "../../src/trace/chrome-import.ts";
import { chromeProblems } from "../../src/trace/chrome-rules.ts";
import type { Trace, TraceEvent } from "../../src/trace/trace.ts";
import { anyTrace, pipelined, receive, run, send, serial, trace } from "./hand-made.ts";

/** Order does not matter in a trace. */
function sorted({ events, memory, ...rest }: Trace): unknown {
  const order = (a: unknown, b: unknown): number => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);
  const fields = (event: TraceEvent): unknown =>
    Object.fromEntries(Object.entries(event).toSorted(([a], [b]) => (a < b ? -1 : 1)));
  return {
    ...rest,
    events: events.map(fields).toSorted(order),
    memory: memory.map(({ device, time, bytes }) => ({ device, time, bytes })).toSorted(order),
  };
}

test("a trace becomes one track per device and stream, in microseconds, with arrows and counters", () => {
  const small = trace(
    2,
    [
      run(0, 0, 0.001, "F", { item: { microBatch: 1, chunk: 2 }, name: "layer0", stage: 0 }),
      send(0, 1, 0.001, 0.0015, { tag: 7, item: { microBatch: 1, chunk: 2 }, phase: "F" }),
      receive(1, 0, 0.0012, 0.0016, { tag: 7 }),
    ],
    { memory: [{ device: 1, time: 0.0005, bytes: 4096 }] },
  );
  expect(printChromeTrace(toChromeTrace([{ name: "naive", trace: small }])).split("\n")).toEqual([
    '{"displayTimeUnit":"ms","otherData":{"format":"paraxis-trace","version":1,"runs":[{"pid":1,"name":"naive",' +
      '"origin":"measured","devices":["cpu:0","cpu:1"]}]},"traceEvents":[',
    '{"ph":"M","name":"process_name","pid":1,"tid":0,"args":{"name":"naive"}},',
    '{"ph":"M","name":"process_sort_index","pid":1,"tid":0,"args":{"sort_index":0}},',
    '{"ph":"M","name":"thread_name","pid":1,"tid":1,"args":{"name":"cpu:0 compute"}},',
    '{"ph":"M","name":"thread_sort_index","pid":1,"tid":1,"args":{"sort_index":1}},',
    '{"ph":"M","name":"thread_name","pid":1,"tid":2,"args":{"name":"cpu:0 send"}},',
    '{"ph":"M","name":"thread_sort_index","pid":1,"tid":2,"args":{"sort_index":2}},',
    '{"ph":"M","name":"thread_name","pid":1,"tid":3,"args":{"name":"cpu:1 receive"}},',
    '{"ph":"M","name":"thread_sort_index","pid":1,"tid":3,"args":{"sort_index":3}},',
    '{"ph":"X","name":"F1.2 layer0","cat":"run","pid":1,"tid":1,"ts":0,"dur":1000,"args":{"device":0,' +
      '"stream":"compute","kind":"run","step":0,"phase":"F","name":"layer0","stage":0,"microBatch":1,"chunk":2}},',
    '{"ph":"X","name":"send F1.2 to cpu:1","cat":"send","pid":1,"tid":2,"ts":1000,"dur":500,"args":{"device":0,' +
      '"stream":"send","kind":"send","step":0,"peer":1,"tag":7,"bytes":100,"phase":"F","microBatch":1,"chunk":2}},',
    '{"ph":"X","name":"receive from cpu:0","cat":"receive","pid":1,"tid":3,"ts":1200,"dur":400,"args":{"device":1,' +
      '"stream":"receive","kind":"receive","step":0,"peer":0,"tag":7,"bytes":100}},',
    '{"name":"transfer","cat":"transfer","pid":1,"ph":"s","id":1,"tid":2,"ts":1000},',
    '{"name":"transfer","cat":"transfer","pid":1,"ph":"f","bp":"e","id":1,"tid":3,"ts":1200},',
    '{"ph":"C","name":"memory cpu:1","pid":1,"tid":0,"ts":500,"args":{"bytes":4096}}',
    "]}",
    "",
  ]);
});

test("any trace, also several in one file, keeps the rules of the format and reads back to the nanosecond", () => {
  fc.assert(
    fc.property(anyTrace, anyTrace, (a, b) => {
      const text = printChromeTrace(
        toChromeTrace([
          { name: "a", trace: a },
          { name: "b", trace: b },
        ]),
      );
      expect(chromeProblems(JSON.parse(text))).toEqual([]);
      const back = parseChromeTrace(text);
      expect(back.map(({ name }) => name)).toEqual(["a", "b"]);
      for (const [i, original] of [a, b].entries()) {
        const rounded = back[i]?.trace ?? serial;
        expect(sorted(roundTimes(rounded))).toEqual(sorted(roundTimes(original)));
      }
    }),
    { numRuns: 60 },
  );
});

function roundTimes(any: Trace): Trace {
  const round = (time: number): number => Math.round(time * 1e9);
  return {
    ...any,
    events: any.events.map((event) => ({ ...event, start: round(event.start), end: round(event.end) })),
    memory: any.memory.map((sample) => ({ ...sample, time: round(sample.time) })),
  };
}

test("events of one stream that overlap get tracks of their own, and none is lost", () => {
  const crossing = trace(1, [run(0, 0, 4), run(0, 2, 6), run(0, 4, 8), run(0, 5, 7)]);
  const { traceEvents } = toChromeTrace([{ name: "run", trace: crossing }]);
  const tracks = traceEvents.filter((event) => event.ph === "M" && event.name === "thread_name");
  expect(tracks.map((event) => "args" in event && event.args)).toEqual([
    { name: "cpu:0 compute" },
    { name: "cpu:0 compute 2" },
    { name: "cpu:0 compute 3" },
  ]);
  expect(traceEvents.filter(({ ph }) => ph === "X").length).toBe(4);
});

test("a trace of hundreds of thousands of events is exported whole", () => {
  const long = trace(
    1,
    Array.from({ length: 200_000 }, (_, i) => run(0, i, i + 1)),
  );
  expect(toChromeTrace([{ name: "run", trace: long }]).traceEvents.length).toBe(200_004);
});

test("each send has one arrow to its receive, with a number of its own in the whole file", () => {
  const { traceEvents } = toChromeTrace([
    { name: "a", trace: serial },
    { name: "b", trace: serial },
  ]);
  const ids = traceEvents.flatMap((event) => (event.ph === "s" ? [event.id] : []));
  expect(ids).toEqual([1, 2, 3, 4]);
  expect(traceEvents.filter(({ ph }) => ph === "f").length).toBe(4);
});

describe("the rules of the format", () => {
  const slice = { ph: "X", name: "a", pid: 1, tid: 1, ts: 0, dur: 10 };
  const names = [
    { ph: "M", name: "process_name", pid: 1, args: { name: "run" } },
    { ph: "M", name: "thread_name", pid: 1, tid: 1, args: { name: "cpu:0" } },
  ];
  const flow = { name: "t", cat: "t", id: 1, pid: 1, tid: 1 };
  const check = (...events: readonly unknown[]): readonly string[] =>
    chromeProblems({ traceEvents: [...names, ...events] });

  test("accept nested and adjacent slices", () => {
    expect(check(slice, { ...slice, ts: 2, dur: 8 }, { ...slice, ts: 10, dur: 1 })).toEqual([]);
    expect(chromeProblems(toChromeTrace([{ name: "run", trace: pipelined }]))).toEqual([]);
  });

  test.each([
    [[{ ...slice, dur: -1 }], "event 2: dur -1 is negative"],
    [[{ ...slice, ts: "0" }], 'event 2: ts must be a number, got "0"'],
    [[{ ...slice, ph: "Q" }], 'event 2: ph "Q" is not one of M, X, s, f, C'],
    [
      [{ ph: "C", name: "m", pid: 1, ts: 0, args: {} }],
      "event 2: the args of a counter must be one or more numbers",
    ],
    [[{ ...slice, tid: 2 }], "track 1/2 has no name"],
    [[{ ...slice, pid: 2 }], "process 2 has no name"],
    [[names[1]], "thread_name of track 1/1 is given 2 times"],
    [[slice, { ...slice, name: "b", ts: 5 }], "track 1/1: b at 5000 ns crosses the end of a"],
    [[slice, { ...flow, ph: "s", ts: 0 }], "flow t t 1 needs one start and one end, got s"],
    [
      [slice, { ...flow, ph: "s", ts: 5 }, { ...flow, ph: "f", bp: "e", ts: 4 }],
      "flow t t 1 ends before it starts",
    ],
    [
      [slice, { ...flow, ph: "s", ts: 5 }, { ...flow, ph: "f", bp: "e", ts: 11 }],
      "flow t t 1: no slice of track 1/1 lasts at 11000 ns",
    ],
    [
      [slice, { ...flow, ph: "s", ts: 5 }, { ...flow, ph: "f", ts: 6 }],
      'flow t t 1 must end with bp "e" to bind to the slice around it',
    ],
  ])("refuse a broken file (%#)", (events, problem) => {
    expect(check(...events)).toContain(problem);
  });

  test("refuse what is no trace at all", () => {
    expect(chromeProblems({})).toEqual(["the file has no list of traceEvents"]);
  });
});

test("a file that is not ours is refused with the place", () => {
  expect(() => parseChromeTrace("[")).toThrow("cannot read the trace");
  expect(() => parseChromeTrace('{"traceEvents":[]}')).toThrow(/cannot read the trace: otherData: /);
});
