/** Why the push goes on fewer channels than the operator has asked for: said once, as it is decided. */
import type { SourceContext } from "./context.ts";

/** What of a context is needed to say it. */
type Speaker = Pick<SourceContext, "emit"> & {
  settings: Pick<SourceContext["settings"], "channelsAsked">;
};

/** Says that there are `count`, the main one among them, if more were asked for by number. */
export function tellFewer({ settings, emit }: Speaker, count: number, why: string): void {
  const { channelsAsked: asked } = settings;
  if (count < asked) emit({ kind: "warning", message: fewerText(count, asked, why) });
}

/** That the push has `count` channels instead of `asked`. */
export function fewerText(count: number, asked: number, why: string): string {
  const channels = count === 1 ? "one channel" : `${count} channels`;
  return `The push goes on ${channels} in place of the ${asked} of --channels: ${why}`;
}
