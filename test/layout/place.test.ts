import { expect, test } from "vitest";
import { unitsInOrder } from "../../src/layout/order.ts";
import { parseDevices, parsePlace, placeByHand, placeRules } from "../../src/layout/place.ts";

const chain = ["embed", "layer0", "layer1", "layer2", "decode"];
const edges = chain.slice(1).map((to, i) => ({ from: chain[i] as string, to }));
const two = parseDevices("cpu:2");

function placed(place: string, devices = two) {
  return placeByHand(chain, edges, parsePlace(place), devices);
}

test("devices are a count, a count with threads, or names", () => {
  expect(parseDevices("cpu:2")).toEqual([
    { name: "cpu:0", threads: 1 },
    { name: "cpu:1", threads: 1 },
  ]);
  expect(parseDevices("cpu:2x4")).toEqual([
    { name: "cpu:0", threads: 4 },
    { name: "cpu:1", threads: 4 },
  ]);
  expect(parseDevices("cpu:0, cpu:1x2")).toEqual([
    { name: "cpu:0", threads: 1 },
    { name: "cpu:1", threads: 2 },
  ]);
  expect(parseDevices("cpu:0")).toEqual([{ name: "cpu:0", threads: 1 }]);
});

test("a text that names no devices is refused with every fault", () => {
  expect(() => parseDevices("cpu:two,cpu:1x0,cpu:3,cpu:3")).toThrow(
    'cannot read the devices "cpu:two,cpu:1x0,cpu:3,cpu:3":\n' +
      '  - expected a count such as cpu:2 or cpu:2x4, or names such as cpu:0,cpu:1, got "cpu:two"\n' +
      '  - "cpu:1x0" has no threads: give at least 1\n' +
      '  - device "cpu:3" is given twice',
  );
  expect(() => parseDevices("")).toThrow(/expected a count/);
  expect(() => parseDevices("cpu:99999999999")).toThrow(/at most 1024 devices/);
});

test("runs of groups on one device become stages", () => {
  expect(placed("embed=cpu:0,layer*=cpu:1,decode=cpu:1").stages).toEqual([
    { devices: ["cpu:0"], groups: ["embed"] },
    { devices: ["cpu:1"], groups: ["layer0", "layer1", "layer2", "decode"] },
  ]);
});

test("a device may have several stages", () => {
  expect(placed("*=cpu:0,layer1=cpu:1").stages).toEqual([
    { devices: ["cpu:0"], groups: ["embed", "layer0"] },
    { devices: ["cpu:1"], groups: ["layer1"] },
    { devices: ["cpu:0"], groups: ["layer2", "decode"] },
  ]);
});

test("the last rule that fits a group counts", () => {
  expect(placed("*=cpu:0,layer?=cpu:1,layer0=cpu:0").stages[1]?.groups).toEqual(["layer1", "layer2"]);
});

test("a record from a job places as the text does, and its special characters mean themselves", () => {
  expect(placeByHand(chain, edges, placeRules({ "*": "cpu:0", decode: "cpu:1" }), two)).toEqual(
    placed("*=cpu:0,decode=cpu:1"),
  );
  const odd = ["a.b", "a+b", "a=b"];
  const rules = placeRules({ "a.b": "cpu:0", "a+b": "cpu:1", "a=b": "cpu:1" });
  expect(placeByHand(odd, [], rules, two).stages.map(({ groups }) => groups)).toEqual([
    ["a.b"],
    ["a+b", "a=b"],
  ]);
  expect(parsePlace("a=b=cpu:0")).toEqual([{ pattern: "a=b", device: "cpu:0" }]);
});

test("devices are listed in the order in which stages use them", () => {
  expect(placed("*=cpu:1,decode=cpu:0").devices.map(({ name }) => name)).toEqual(["cpu:1", "cpu:0"]);
});

test("every fault of a placement is listed at once", () => {
  expect(() => placed("embed=cpu:5,lstm*=cpu:0")).toThrow(
    "the placement cannot be used:\n" +
      '  - "embed=cpu:5": unknown device "cpu:5"; the devices are cpu:0, cpu:1\n' +
      '  - "lstm*=cpu:0": no group is called that; the groups are embed, layer0, layer1, layer2, decode\n' +
      '  - no rule places layer0, layer1, layer2, decode; a first rule "*=cpu:0" would place the rest\n' +
      '  - device "cpu:0" gets no group: place one there or leave the device out\n' +
      '  - device "cpu:1" gets no group: place one there or leave the device out',
  );
  expect(() => parsePlace("embed,=cpu:0")).toThrow(
    'cannot read the placement "embed,=cpu:0":\n  - expected group=device, got "embed"\n  - expected group=device, got "=cpu:0"',
  );
});

test("parallel branches that the model writes in turns become one stage each, and so does what joins them", () => {
  const groups = ["user0", "item0", "user1", "item1", "score"];
  const towers = [
    { from: "user0", to: "user1" },
    { from: "item0", to: "item1" },
    { from: "user1", to: "score" },
    { from: "item1", to: "score" },
  ];
  expect(placeByHand(groups, towers, parsePlace("user*=cpu:0,item*=cpu:1,score=cpu:1"), two).stages).toEqual([
    { devices: ["cpu:0"], groups: ["user0", "user1"] },
    { devices: ["cpu:1"], groups: ["item0", "item1"] },
    { devices: ["cpu:1"], groups: ["score"] },
  ]);
});

test("a skip connection into a stage that waits for the same device does not cut it", () => {
  const skip = [...edges, { from: "embed", to: "decode" }];
  expect(placeByHand(chain, skip, parsePlace("*=cpu:1,embed=cpu:0"), two).stages).toEqual([
    { devices: ["cpu:0"], groups: ["embed"] },
    { devices: ["cpu:1"], groups: ["layer0", "layer1", "layer2", "decode"] },
  ]);
});

test("groups that first compute too early are put behind what they need", () => {
  expect(unitsInOrder(["b", "a"], [{ from: "a", to: "b" }])).toEqual([["a"], ["b"]]);
});

test("groups that need each other's values in turn stay together", () => {
  const around = [
    { from: "a", to: "model" },
    { from: "model", to: "b" },
    { from: "b", to: "model" },
    { from: "model", to: "c" },
  ];
  expect(unitsInOrder(["a", "model", "b", "c"], around)).toEqual([["a"], ["model", "b"], ["c"]]);
  expect(() => placeByHand(["a", "model", "b", "c"], around, parsePlace("*=cpu:0,b=cpu:1"), two)).toThrow(
    "groups model, b need each other's values in turn: put them on one device",
  );
});
