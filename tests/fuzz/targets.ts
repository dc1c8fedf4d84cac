/** All that mutated bytes are given to. */
import type { Target } from "./target.ts";
import { ARRIVAL_TARGETS } from "./targets/arrival.ts";
import { CHANNEL_TARGETS } from "./targets/channels.ts";
import { DEST_TARGETS } from "./targets/dest.ts";
import { FILE_TARGETS } from "./targets/files.ts";
import { MONITOR_TARGETS } from "./targets/monitor.ts";
import { PUSHED_TARGETS } from "./targets/pushed.ts";
import { SOURCE_TARGETS } from "./targets/source.ts";

export const TARGETS: readonly Target[] = [
  ...DEST_TARGETS,
  ...FILE_TARGETS,
  ...ARRIVAL_TARGETS,
  ...CHANNEL_TARGETS,
  ...PUSHED_TARGETS,
  ...SOURCE_TARGETS,
  ...MONITOR_TARGETS,
];
