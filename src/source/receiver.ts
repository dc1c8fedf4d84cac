/** What is at the other end, as far as its answer to the hello says (stream/hello.ts). */
import { hostPageBytes } from "../stream/hello.ts";
import { WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";

/**
 * Whether the guest runs in another program than ours, whose pages are worth knowing: in a QEMU, or in
 * a VMM whose memory is filled, which says of what size its pages are. What one of ours keeps asks for
 * nothing.
 */
export function runsElsewhere({ control }: SourceShared): boolean {
  const features = Atomics.load(control, WORD.peerFeatures);
  return features === 0 || hostPageBytes(features) !== undefined;
}
