/**
 * The rules of the Trace Event Format that viewers rely on without telling: a file that breaks them opens with
 * slices or arrows missing. Checks any JSON value, not only what this package wrote.
 */

/** Every broken rule as a sentence; empty if a viewer will show everything. */
export function chromeProblems(value: unknown): readonly string[] {
  const list = isRecord(value) ? value["traceEvents"] : value;
  if (!Array.isArray(list)) return ["the file has no list of traceEvents"];
  const problems = list.flatMap((event: unknown, i) =>
    eventProblems(event).map((fault) => `event ${i}: ${fault}`),
  );
  if (problems.length > 0) return problems;
  const events = list.filter(isRecord);
  return [...nameProblems(events), ...trackProblems(events), ...flowProblems(events)];
}

type JsonRecord = Readonly<Record<string, unknown>>;

/** What each kind of event must have; the names are the format's own. */
const required: Readonly<Record<string, Readonly<Record<string, "number" | "string" | "object" | "id">>>> = {
  M: { name: "string", pid: "number", args: "object" },
  X: { name: "string", pid: "number", tid: "number", ts: "number", dur: "number" },
  s: { name: "string", cat: "string", pid: "number", tid: "number", ts: "number", id: "id" },
  f: { name: "string", cat: "string", pid: "number", tid: "number", ts: "number", id: "id" },
  C: { name: "string", pid: "number", ts: "number", args: "object" },
};

function eventProblems(event: unknown): string[] {
  if (!isRecord(event)) return ["it is not an object"];
  const fields = required[String(event["ph"])];
  if (fields === undefined) return [`ph ${JSON.stringify(event["ph"])} is not one of M, X, s, f, C`];
  const problems = Object.entries(fields)
    .filter(([field, type]) => !hasType(event[field], type))
    .map(([field, type]) => `${field} must be a ${type}, got ${JSON.stringify(event[field])}`);
  if (event["ph"] === "X" && Number(event["dur"]) < 0) problems.push(`dur ${event["dur"]} is negative`);
  if (event["ph"] === "C" && isRecord(event["args"]) && !isCounter(event["args"]))
    problems.push("the args of a counter must be one or more numbers");
  return problems;
}

function hasType(value: unknown, type: "number" | "string" | "object" | "id"): boolean {
  switch (type) {
    case "number":
      return Number.isFinite(value);
    case "string":
      return typeof value === "string";
    case "object":
      return isRecord(value);
    case "id":
      return typeof value === "string" || Number.isFinite(value);
    default:
      return type satisfies never;
  }
}

function isCounter(args: JsonRecord): boolean {
  const values = Object.values(args);
  return values.length > 0 && values.every((value) => Number.isFinite(value));
}

/** Every process and track with slices has a name, and only one. */
function nameProblems(events: readonly JsonRecord[]): string[] {
  const problems: string[] = [];
  const names = new Map<string, number>();
  for (const event of events) {
    if (event["ph"] !== "M") continue;
    const key = event["name"] === "process_name" ? process(event) : `${event["name"]} of ${track(event)}`;
    names.set(key, (names.get(key) ?? 0) + 1);
  }
  for (const [key, times] of names) if (times > 1) problems.push(`${key} is given ${times} times`);
  const slices = events.filter((event) => event["ph"] === "X");
  for (const key of new Set(slices.map(process))) if (!names.has(key)) problems.push(`${key} has no name`);
  for (const key of new Set(slices.map(track)))
    if (!names.has(`thread_name of ${key}`)) problems.push(`${key} has no name`);
  return problems;
}

/** The slices of a track are disjoint or nested. */
function trackProblems(events: readonly JsonRecord[]): string[] {
  const problems: string[] = [];
  for (const [key, slices] of slicesByTrack(events)) {
    const open: Slice[] = [];
    for (const slice of slices) {
      while ((open.at(-1)?.end ?? Number.POSITIVE_INFINITY) <= slice.start) open.pop();
      const around = open.at(-1);
      if (around !== undefined && slice.end > around.end)
        problems.push(`${key}: ${slice.name} at ${slice.start} ns crosses the end of ${around.name}`);
      open.push(slice);
    }
  }
  return problems;
}

/** Arrows have one start and one end, in order of time, each on a slice. */
function flowProblems(events: readonly JsonRecord[]): string[] {
  const tracks = slicesByTrack(events);
  const flows = new Map<string, JsonRecord[]>();
  for (const event of events) {
    if (event["ph"] !== "s" && event["ph"] !== "f") continue;
    const key = `flow ${event["cat"]} ${event["name"]} ${event["id"]}`;
    flows.set(key, [...(flows.get(key) ?? []), event]);
  }
  return [...flows].flatMap(([key, ends]) => {
    const [start, end, ...more] = ends.toSorted((a, b) => Number(b["ph"] === "s") - Number(a["ph"] === "s"));
    if (start?.["ph"] !== "s" || end?.["ph"] !== "f" || more.length > 0)
      return [`${key} needs one start and one end, got ${ends.map((one) => one["ph"]).join(", ")}`];
    const problems: string[] = [];
    if (end["bp"] !== "e") problems.push(`${key} must end with bp "e" to bind to the slice around it`);
    if (nanoseconds(end["ts"]) < nanoseconds(start["ts"])) problems.push(`${key} ends before it starts`);
    for (const one of [start, end]) {
      const time = nanoseconds(one["ts"]);
      const slices = tracks.get(track(one)) ?? [];
      if (!slices.some((slice) => slice.start <= time && time <= slice.end))
        problems.push(`${key}: no slice of ${track(one)} lasts at ${time} ns`);
    }
    return problems;
  });
}

/** In nanoseconds: sums of microseconds as floating point numbers would seem to cross. */
interface Slice {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

function slicesByTrack(events: readonly JsonRecord[]): ReadonlyMap<string, readonly Slice[]> {
  const tracks = new Map<string, Slice[]>();
  for (const event of events) {
    if (event["ph"] !== "X") continue;
    const start = nanoseconds(event["ts"]);
    const slice = { name: String(event["name"]), start, end: start + nanoseconds(event["dur"]) };
    const slices = tracks.get(track(event));
    if (slices === undefined) tracks.set(track(event), [slice]);
    else slices.push(slice);
  }
  for (const slices of tracks.values()) slices.sort((a, b) => a.start - b.start || b.end - a.end);
  return tracks;
}

function nanoseconds(microseconds: unknown): number {
  return Math.round(Number(microseconds) * 1000);
}

function process(event: JsonRecord): string {
  return `process ${event["pid"]}`;
}

function track(event: JsonRecord): string {
  return `track ${event["pid"]}/${event["tid"]}`;
}

function isRecord(value: unknown): value is JsonRecord {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
