/**
 * ONNX Runtime's Node binding (1.30) writes outputs straight into the tensors that it is given, and then copies every one of them
 * into a fresh tensor that nobody asked for: 16 MB take 6.9 ms instead of 0.9. It refuses to convert outputs that are not tensors,
 * and stops at the first of these, when everything has been computed. So models with large outputs begin with an empty sequence, and
 * that one refusal is expected. Decision 0002 has the figures.
 */

import { InferenceSession, Tensor } from "onnxruntime-node";
import { GraphBuilder } from "../../graph/builder.ts";
import { neg } from "../../graph/functions.ts";
import { lowerGraph } from "../../onnx/lower.ts";

/** Name of the empty sequence. */
export const sentinelName = "done";

/**
 * The message of the refusal, tried on a tiny model; `undefined` where this version of the binding does not refuse, or has not
 * written the output by then.
 */
export async function probeRefusal(): Promise<string | undefined> {
  const builder = new GraphBuilder();
  builder.output("y", neg(builder.input("x", "data", { dtype: "f32", shape: [1] })));
  const { model } = lowerGraph(builder.build(), { sentinel: sentinelName });
  const result = new Float32Array(1);
  const session = await InferenceSession.create(model, { logSeverityLevel: 4 });
  try {
    const feeds = { i0: new Tensor("float32", Float32Array.of(1), [1]) };
    await session.run(feeds, { [sentinelName]: null, o0: new Tensor("float32", result, [1]) });
    return undefined;
  } catch (error) {
    return result[0] === -1 ? (error as Error).message : undefined;
  } finally {
    await session.release();
  }
}
