/**
 * The report of one migration, as `--report FILE` writes it: one object, versioned, strict. The
 * same schemas make docs/report.schema.json (scripts/schema.ts). Numbers say their unit in their
 * name; pages are target pages of 4 KiB; a part that did not happen is null, not zero.
 */
import * as z from "zod";
import { DEST_PHASES, SOURCE_PHASES } from "./counters.ts";
import { FAVOURS } from "../sync/favour.ts";
import { MICROSECOND_BUCKETS } from "./histogram.ts";
import { qemuFiguresSchema } from "./qemu-figures.ts";

/** Raised when a field changes its meaning or goes; new fields do not raise it. */
export const REPORT_VERSION = 1;

const count = z.int().nonnegative();
const milliseconds = z.number().nonnegative();
const share = z.number().min(0).max(1).nullable();

const error = z
  .strictObject({
    code: z.string().describe("Stable, upper case, for scripts"),
    message: z.string().describe("The sentences of the error and its causes"),
  })
  .describe("What ended the migration");

export const latencySchema = z
  .strictObject({
    count,
    mean: z.number().nonnegative(),
    min: z.number().nonnegative(),
    p50: z.number().nonnegative(),
    p90: z.number().nonnegative(),
    p99: z.number().nonnegative(),
    max: z.number().nonnegative(),
    buckets: z
      .array(count)
      .length(MICROSECOND_BUCKETS)
      .describe("Counts of [2^N, 2^(N+1)) µs, as QEMU's postcopy-latency-dist"),
  })
  .describe("Latencies in ns");

export const downtimeSchema = z
  .strictObject({
    ms: milliseconds.describe(
      "From the guest's last instruction at the source to its first at the destination",
    ),
    method: z
      .enum(["one-clock", "two-clocks", "acknowledged", "guest"])
      .describe(
        "one-clock: both instants read from one machine's monotonic clock. two-clocks: from the " +
          "wall clocks of two machines. acknowledged: from the stop to the destination's answer, " +
          "an upper bound. guest: the longest gap the guest itself saw.",
      ),
  })
  .describe("How long the guest did not run");

const times = z
  .strictObject({
    setup: milliseconds.nullable().describe("From the start to the first page"),
    precopy: milliseconds.nullable().describe("From the first page to the stop of the guest"),
    device: milliseconds.nullable().describe("From the stop to the last byte of device state"),
    postcopy: milliseconds.nullable().describe("From there to the last page"),
    toRunning: milliseconds.nullable().describe("From the start until the destination ran"),
    toDrained: milliseconds.nullable().describe("From the start until no page was missing"),
    total: milliseconds.describe("From the start to the end of the command's work"),
  })
  .describe("Durations in ms");

const rates = z
  .strictObject({
    precopy: z.number().nonnegative().nullable(),
    postcopy: z.number().nonnegative().nullable(),
  })
  .describe("Mean bytes a second on the wire");

const memory = z.strictObject({
  guestBytes: count.describe("RAM of the guest"),
  peakRssBytes: count.describe("Most memory this process ever held, the guest's included"),
});

export const roundSchema = z
  .strictObject({
    round: count.describe("From 1"),
    pagesNormal: count,
    pagesZero: count,
    bytes: count,
    dirtyPagesAfter: count.describe("Dirty when the round was over"),
    durationMs: milliseconds,
  })
  .describe("One precopy round");

export const switchoverSchema = z.strictObject({
  reason: z.string().describe("Why then, as a phrase for people"),
  dirtyPages: count.describe("Pages that still had to move"),
  kind: z
    .enum(["precopy", "postcopy"])
    .describe("precopy: they moved while the guest stood; postcopy: while it ran"),
});

const favour = z
  .enum(FAVOURS)
  .nullable()
  .describe(
    "How this host schedules the thread that the guest's requests wait for: before all others, " +
      "favoured, or as usual where it allows neither; null where that thread is a QEMU's",
  );

const pushChannels = count.describe(
  "Connections that the push was spread over; 1 where a QEMU sent or received the guest",
);

/** How a migration ended. */
export const outcomeSchema = z
  .enum(["completed", "failed", "cancelled", "abandoned"])
  .describe(
    "failed: by itself; cancelled: by the operator, and the guest is where it was; abandoned: by the " +
      "operator behind the switch, or of a QEMU that was driven and goes on by itself",
  );
export type Outcome = z.infer<typeof outcomeSchema>;

const shared = {
  version: z.literal(REPORT_VERSION),
  program: z.string().describe("Version of postcopy"),
  startedAt: z.iso.datetime(),
  guest: z.string(),
  peer: z.string(),
  outcome: outcomeSchema,
  error: error.nullable(),
  downtime: downtimeSchema.nullable(),
  times,
  rates,
  memory,
  qemu: qemuFiguresSchema.nullable().describe("Where a QEMU was driven at this end"),
};

export const sourceReportSchema = z
  .strictObject({
    role: z.literal("source"),
    ...shared,
    phase: z.enum(SOURCE_PHASES).describe("The last phase that was reached"),
    urgentChannel: z.boolean().describe("Whether requests were answered on their own channel"),
    pushChannels,
    favour,
    recoveries: count.describe("How often the link broke after the switch and was made anew"),
    switchover: switchoverSchema.nullable(),
    rounds: z.array(roundSchema),
    pages: z.strictObject({
      total: count,
      precopyNormal: count,
      precopyZero: count,
      owed: count.describe("Pages that the destination lacked at the switchover"),
      pushedNormal: count,
      pushedZero: count,
      pushedCompressed: count.describe("Of pushedNormal: those that went compressed"),
      requestedNormal: count,
      requestedZero: count,
      repeated: count.describe(
        "Sent once more, as they were asked for while under way in the push",
      ),
    }),
    requests: z.strictObject({
      received: count,
      served: count.describe("Answered with at least one page"),
      duplicate: count.describe("All their pages had been sent before"),
      remoteShare: share.describe(
        "Of the pages owed at the switchover, the share that was sent because it was asked for; " +
          "null where none was owed, or a QEMU sent them",
      ),
    }),
    bytes: z.strictObject({
      precopy: count,
      package: count,
      postcopy: count,
      requested: count,
      total: count,
    }),
    workingSet: z
      .strictObject({
        pages: count.describe("Pages that were recorded"),
        toInPlaceMs: milliseconds
          .nullable()
          .describe("From the start until all of them were there"),
      })
      .nullable()
      .describe("What the guest asked for in earlier restores"),
    requestServiceNs: latencySchema
      .nullable()
      .describe("From a request's last byte read to its page written"),
  })
  .describe("What a source reports");

export const destReportSchema = z
  .strictObject({
    role: z.literal("dest"),
    ...shared,
    phase: z.enum(DEST_PHASES).describe("The last phase that was reached"),
    completedIn: z
      .enum(["precopy", "postcopy"])
      .nullable()
      .describe("How the guest came here; null where it did not, or a QEMU received it"),
    urgentChannel: z.boolean().describe("Whether requests were answered on their own channel"),
    pushChannels,
    favour,
    pages: z.strictObject({
      total: count,
      precopyNormal: count,
      precopyZero: count,
      missing: count.describe("Pages that lacked when the guest started"),
      pushedNormal: count.describe("Postcopy pages of the channels that the push comes on"),
      pushedZero: count,
      urgentNormal: count.describe("Postcopy pages of the urgent channel"),
      urgentZero: count,
      removed: count.describe("Discarded by the guest while it moved"),
      dropped: count.describe("Arrived after the guest had discarded them"),
    }),
    places: z.strictObject({
      exists: count.describe("EEXIST: the page was here already"),
      retries: count.describe("EAGAIN: the address space was changing"),
    }),
    faults: z.strictObject({
      events: count.describe("Page-fault events read"),
      remote: count.describe("Faults that needed a request"),
      local: count.describe("Faults on pages that had come meanwhile"),
      remoteShare: share.describe(
        "Of the pages that lacked when the guest started, the share that remote faults asked for; " +
          "null where none lacked, or a QEMU received them",
      ),
      latencyNs: latencySchema
        .nullable()
        .describe("Remote faults, from the event read to the page placed"),
    }),
    bytes: z.strictObject({
      main: count.describe("On the main channel, and on further ones of the push"),
      multifd: count,
      urgent: count,
      total: count,
    }),
    multifd: z
      .strictObject({ channels: count, compression: z.enum(["none", "zlib", "zstd"]) })
      .nullable()
      .describe("Channels of a QEMU on which pages came in precopy"),
    audit: z
      .strictObject({ pagesChecked: count, pagesWrong: count })
      .nullable()
      .describe("The guest's own check of every page"),
    snapshot: z
      .strictObject({
        directory: z.string(),
        bytes: count.describe("Bytes it takes on disk"),
        pagesStored: count,
        deviceBytes: count.describe("Bytes of device state"),
      })
      .nullable(),
  })
  .describe("What a destination reports");

export const reportSchema = z
  .discriminatedUnion("role", [sourceReportSchema, destReportSchema])
  .meta({ title: "postcopy migration report" });

export type SourceReport = z.infer<typeof sourceReportSchema>;
export type DestReport = z.infer<typeof destReportSchema>;
export type Report = z.infer<typeof reportSchema>;
export type Round = z.infer<typeof roundSchema>;
export type Switchover = z.infer<typeof switchoverSchema>;
export type Downtime = z.infer<typeof downtimeSchema>;
