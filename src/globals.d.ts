/** The few globals that browsers and Node share; the core may use these and nothing else of either platform. */
declare class TextEncoder {
  encode(text: string): Uint8Array;
}
declare class TextDecoder {
  decode(bytes: Uint8Array): string;
}
declare const performance: { now(): number };
