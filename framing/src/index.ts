export { FramingError, FramingStateError, type FramingViolation } from "./errors.ts";
export { type FramingInspection, FramingMachine, initialFramingState, inspectFramingState } from "./machine.ts";
export type { CiphertextFormat, FramingPolicy } from "./policy.ts";
export { HIDDEN, MAX_RECIPIENTS, OTHER, PASSPHRASE, type Recipients } from "./recipients.ts";
