export { FramingError, FramingStateError, type FramingViolation } from "./errors.ts";
export { type FramingInspection, FramingMachine, initialFramingState, inspectFramingState } from "./machine.ts";
export type { CiphertextFormat, FramingPolicy } from "./policy.ts";
export { MAX_FRAMING_STATE_BYTES } from "./state-codec.ts";
