/** Connections to the destination beside the main one. */
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { StoppedError } from "../channel/channel.ts";
import { channelHead } from "../stream/further-channel.ts";
import type { FurtherChannel } from "../stream/further-channel.ts";
import { errorChain } from "../util/errors.ts";
import type { SourceContext } from "./context.ts";

/**
 * Connects once more to the destination and sends the head of a channel: its descriptor. Undefined where
 * there can be none, and, with a warning that begins with `without`, where it cannot be had.
 */
export function openFurtherChannel(
  { connectFurther, openChannel, emit }: SourceContext,
  kind: FurtherChannel,
  token: number,
  without: string,
): number | undefined {
  if (connectFurther === undefined) return undefined;
  try {
    const fd = connectFurther();
    try {
      openChannel(fd).write(channelHead(kind, token));
    } catch (error) {
      closeDescriptor(fd);
      throw error;
    }
    return fd;
  } catch (error) {
    if (error instanceof StoppedError || !(error instanceof Error)) throw error;
    emit({ kind: "warning", message: `${without}: ${errorChain(error)}` });
    return undefined;
  }
}
