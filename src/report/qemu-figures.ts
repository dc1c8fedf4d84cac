/** What a QEMU at one end of a migration says of it, as reports have it. */
import * as z from "zod";

const count = z.int().nonnegative();
const milliseconds = z.number().nonnegative();

export const qemuFiguresSchema = z
  .strictObject({
    version: z.string().describe("Release of the QEMU"),
    status: z.string().describe("Its migration status at the end"),
    startMs: milliseconds
      .nullable()
      .describe("From starting its process to its monitor's answer, where it was started here"),
    totalMs: milliseconds.nullable().describe("Its total-time"),
    downtimeMs: milliseconds
      .nullable()
      .describe("Its downtime, which ends when the package is sent"),
    blocktimeMs: milliseconds
      .nullable()
      .describe("How long all vCPUs were blocked at once (postcopy-blocktime)"),
    stoodStillMs: milliseconds
      .nullable()
      .describe("With --keep: from the guest's stop until it went on"),
    requests: count.nullable().describe("Page requests that it answered (postcopy-requests)"),
    latencyMeanNs: z
      .number()
      .nonnegative()
      .nullable()
      .describe("Mean remote fault (postcopy-latency, 10.1 and later)"),
    latencyBuckets: z
      .array(count)
      .nullable()
      .describe("Counts of remote faults of [2^N, 2^(N+1)) µs (postcopy-latency-dist)"),
  })
  .describe("QEMU's own figures");

export type QemuFigures = z.infer<typeof qemuFiguresSchema>;
