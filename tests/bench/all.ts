/** Every benchmark there is, in the order of the tables: those of the program, and what needs more. */
import { OWN_BENCHMARKS } from "../../src/bench/all.ts";
import type { ListedBenchmark } from "../../src/bench/contest.ts";
import { bulkIdle, bulkRunning } from "./bulk.ts";
import { downtime } from "./downtime.ts";
import { faults } from "./faults.ts";
import { faultsHuge } from "./faults-huge.ts";
import { faultsDelayed, faultsGigabit } from "./faults-link.ts";
import { capture, restoreRate } from "./kept-guests.ts";
import { replay } from "./replay.ts";
import { restore, restoreClones, restoreGrowth } from "./restore.ts";
import { roundTrip } from "./round-trip.ts";
import { slowLink } from "./slow-link.ts";
import { start } from "./start.ts";
import { uffd } from "./uffd.ts";

/** What needs a QEMU, a compiler, or network namespaces beside this program. */
const WITH_PEERS: readonly ListedBenchmark[] = [
  { id: "bulk-idle", make: bulkIdle },
  { id: "bulk-running", make: bulkRunning },
  { id: "capture", make: capture },
  { id: "restore-rate", make: restoreRate },
  { id: "downtime", make: downtime, runs: 9 },
  { id: "restore", make: restore },
  { id: "restore-clones", make: restoreClones },
  { id: "restore-growth", make: restoreGrowth, runs: 9 },
  { id: "replay", make: replay },
  { id: "faults", make: faults },
  { id: "faults-gigabit", make: faultsGigabit },
  { id: "faults-delayed", make: faultsDelayed },
  { id: "faults-huge", make: faultsHuge },
  { id: "uffd", make: uffd },
  { id: "slow-link", make: slowLink, runs: 3 },
  { id: "round-trip", make: roundTrip },
  { id: "start", make: start },
];

const withPeers = new Set(WITH_PEERS.map(({ id }) => id));

/** One that has peers here takes the place of the program's own of the same name. */
export const BENCHMARKS: readonly ListedBenchmark[] = [
  ...OWN_BENCHMARKS.filter(({ id }) => !withPeers.has(id)),
  ...WITH_PEERS,
];
