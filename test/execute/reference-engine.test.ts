import { describe } from "vitest";
import { referenceEngine } from "../../src/execute/reference-engine.ts";
import { engineConformance } from "./engine-conformance.ts";

describe("the reference engine", () => {
  engineConformance(referenceEngine);
});
