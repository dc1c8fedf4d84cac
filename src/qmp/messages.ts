/**
 * What QEMU's machine protocol says, as far as this program reads it (QEMU, docs/interop/qmp-spec
 * and qapi/*.json): JSON objects, one a line. Unknown members are let through everywhere: every
 * release adds some.
 */
import * as z from "zod";

const count = z.number().nonnegative();

/** The first line of a monitor. */
export const greetingSchema = z.looseObject({
  QMP: z.looseObject({
    version: z.looseObject({
      qemu: z.looseObject({ major: z.int(), minor: z.int(), micro: z.int() }),
    }),
    capabilities: z.array(z.unknown()),
  }),
});

/** What stands in an answer or an event. */
export const messageSchema = z.union([
  z.object({
    event: z.string(),
    data: z.record(z.string(), z.unknown()).optional(),
    timestamp: z.object({ seconds: z.number(), microseconds: z.number() }),
  }),
  z.object({
    id: z.int().optional(),
    error: z.object({ class: z.string(), desc: z.string() }),
  }),
  z.object({ id: z.int(), return: z.unknown() }),
]);
export type Message = z.infer<typeof messageSchema>;

export const uuidSchema = z.looseObject({ UUID: z.string() });

export const statusSchema = z.looseObject({ running: z.boolean(), status: z.string() });

export const capabilitiesSchema = z.array(
  z.looseObject({ capability: z.string(), state: z.boolean() }),
);

/** Parameters that are changed here and put back afterwards. */
export const parametersSchema = z.looseObject({
  "max-bandwidth": count.optional(),
  "max-postcopy-bandwidth": count.optional(),
  "downtime-limit": count.optional(),
  "tls-creds": z.string().optional(),
  "tls-hostname": z.string().optional(),
});

const ramSchema = z.looseObject({
  transferred: count,
  remaining: count,
  total: count,
  duplicate: count,
  normal: count,
  "dirty-pages-rate": count,
  "dirty-sync-count": count,
  // Megabits a second; 0 until the first tenth of a second has been measured.
  mbps: count.default(0),
  "page-size": count,
  "postcopy-requests": count.default(0),
  "precopy-bytes": count.default(0),
  "downtime-bytes": count.default(0),
  "postcopy-bytes": count.default(0),
});

/** `query-migrate`: of a QEMU that never migrated it is empty. */
export const migrateSchema = z.looseObject({
  status: z.string().optional(),
  "error-desc": z.string().optional(),
  "total-time": count.optional(),
  "setup-time": count.optional(),
  downtime: count.optional(),
  "blocked-reasons": z.array(z.string()).optional(),
  ram: ramSchema.optional(),
  // Pages that were sent encoded are counted apart.
  "xbzrle-cache": z.looseObject({ pages: count }).optional(),
  compression: z.looseObject({ pages: count }).optional(),
  "postcopy-blocktime": count.optional(),
  // 10.1 and later: means in ns, and counts of [2^N, 2^(N+1)) µs.
  "postcopy-latency": count.optional(),
  "postcopy-non-vcpu-latency": count.optional(),
  "postcopy-latency-dist": z.array(count).optional(),
  "socket-address": z
    .array(
      z.looseObject({
        type: z.string(),
        host: z.string().optional(),
        port: z.string().optional(),
        path: z.string().optional(),
      }),
    )
    .optional(),
});
export type MigrateReply = z.infer<typeof migrateSchema>;
