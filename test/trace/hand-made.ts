/** Small traces whose statistics can be worked out in the head, and random ones for properties. */
import fc from "fast-check";
import type { Trace, TraceEvent, TracePhase } from "../../src/trace/trace.ts";

export function run(
  device: number,
  start: number,
  end: number,
  phase: TracePhase = "F",
  more: Partial<TraceEvent> = {},
): TraceEvent {
  return { device, stream: "compute", kind: "run", step: 0, start, end, phase, ...more };
}

export function send(
  device: number,
  peer: number,
  start: number,
  end: number,
  more: Partial<TraceEvent> = {},
): TraceEvent {
  return { device, stream: "send", kind: "send", step: 0, start, end, peer, tag: 0, bytes: 100, ...more };
}

export function receive(
  device: number,
  peer: number,
  start: number,
  end: number,
  more: Partial<TraceEvent> = {},
): TraceEvent {
  return {
    device,
    stream: "receive",
    kind: "receive",
    step: 0,
    start,
    end,
    peer,
    tag: 0,
    bytes: 100,
    ...more,
  };
}

function wait(device: number, start: number, end: number): TraceEvent {
  return { device, stream: "compute", kind: "wait", step: 0, start, end };
}

export function trace(devices: number, events: readonly TraceEvent[], more: Partial<Trace> = {}): Trace {
  const names = Array.from({ length: devices }, (_, i) => `cpu:${i}`);
  return { origin: "measured", devices: names, events, memory: [], ...more };
}

/** Two devices, one item: forward, transfer, forward and backward, transfer, backward. Seconds 0 to 10. */
export const serial: Trace = trace(2, [
  run(0, 0, 2),
  send(0, 1, 2, 3),
  receive(1, 0, 2, 3),
  wait(1, 0, 3),
  run(1, 3, 5),
  run(1, 5, 7, "B"),
  send(1, 0, 7, 8, { tag: 1 }),
  receive(0, 1, 7, 8, { tag: 1 }),
  wait(0, 3, 8),
  run(0, 8, 10, "B"),
]);

/** Devices 0 and 1 compute 8 of 10 seconds each, 6 of them together. */
export const pipelined: Trace = trace(
  2,
  [
    run(0, 0, 4, "F", { item: { microBatch: 0, chunk: 0 }, stage: 0, name: "layer0" }),
    run(1, 2, 8, "B", { item: { microBatch: 0, chunk: 1 } }),
    run(0, 4, 8, "W"),
    run(1, 8, 10, "U"),
  ],
  {
    memory: [
      { device: 0, time: 0, bytes: 10 },
      { device: 0, time: 4, bytes: 30 },
      { device: 1, time: 1, bytes: 7 },
    ],
  },
);

const nanosecond = 1e-9;

/** Traces on whole nanoseconds, with matched messages; computation of one device may overlap. */
export const anyTrace: fc.Arbitrary<Trace> = fc.integer({ min: 1, max: 4 }).chain((devices) => {
  const device = fc.nat(devices - 1);
  const times = { start: fc.nat(2000), length: fc.nat(300) };
  const span = ({ start, length }: { start: number; length: number }): { start: number; end: number } => ({
    start: (start * 1000) / 1e9,
    end: ((start + length) * 1000) / 1e9,
  });
  const runs = fc
    .record({
      device,
      ...times,
      step: fc.nat(2),
      phase: fc.constantFrom<TracePhase>("F", "B", "W", "U"),
      item: fc.record({ microBatch: fc.nat(3), chunk: fc.nat(3) }, { noNullPrototype: true }),
    })
    .map(
      ({ start, length, ...rest }): TraceEvent => ({
        stream: "compute",
        kind: "run",
        ...rest,
        ...span({ start, length }),
      }),
    );
  const messages = fc
    .record({ from: device, to: device, ...times, delay: fc.nat(50), tag: fc.nat(1000) })
    .map(({ from, to, delay, tag, ...when }): TraceEvent[] => [
      send(from, to, span(when).start, span(when).end, { tag }),
      receive(
        to,
        from,
        span(when).start + delay * 1000 * nanosecond,
        span(when).end + delay * 1000 * nanosecond,
        { tag },
      ),
    ]);
  const memory = fc
    .record({ device, time: fc.nat(2000), bytes: fc.nat(1e6) })
    .map(({ time, ...rest }) => ({ ...rest, time: (time * 1000) / 1e9 }));
  return fc
    .record({
      runs: fc.array(runs, { maxLength: 30 }),
      messages: fc.array(messages, { maxLength: 10 }),
      memory: fc.array(memory),
    })
    .map((parts) => trace(devices, [...parts.runs, ...parts.messages.flat()], { memory: parts.memory }));
});
