/** What main gives to each worker, and what it hears from it. All of it is plain data. */
import type { SocketAddress } from "../../syscalls/socket.ts";
import type { AllowRule } from "../channel/allow.ts";
import type { DestEvent, GuestMemory } from "../dest/context.ts";
import type { DestSharedData } from "../dest/shared.ts";
import type { IncomingOutcome } from "../dest/completion.ts";
import type { ArrivalNews, DestGuestData, SourceGuestData } from "../guests/registry.ts";
import type { AuditResult } from "../guests/stress/audit.ts";
import type { ModelVerdict } from "../guests/stress/model.ts";
import type { StressSetup } from "../guests/stress/setup.ts";
import type { JournalRecord } from "../journal/record.ts";
import type { SourceEvent, SourceSettings } from "../source/context.ts";
import type { GuestPlace, SourceOutcome } from "../source/migrate.ts";
import type { SourceSharedData } from "../source/shared.ts";
import type { GuestIdentity } from "../stream/identity.ts";
import type { ErrorRecord } from "../util/errors.ts";

/** How the source reaches its peer: by connecting, or over a descriptor that is connected. */
export type Route =
  | {
      kind: "connect";
      addresses: SocketAddress[];
      patienceMs: number;
      /** It leads to a bridge, which says by a first byte that the connection behind it stands. */
      joined?: boolean;
    }
  | { kind: "descriptor"; fd: number };

export interface MigrationTask {
  guest: SourceGuestData;
  identity: GuestIdentity;
  shared: SourceSharedData;
  settings: SourceSettings;
  /** Target pages, counted over all blocks, that are pushed first. */
  replay: Uint32Array;
  /** Hold the push back while the guest asks for pages, to see which it needs first. */
  watch: boolean;
  route: Route;
  /** Go on after a broken link: the destination has a part of the guest already. */
  resume: boolean;
  /** Written when the guest is about to be handed over; null where no journal is kept. */
  record: JournalRecord | null;
  stopFd: number;
  peer: string;
}

/** An event and when it happened, in nanoseconds of the monotonic clock. */
export type Stamped<Event> = Event & { atNs: number };

export type MigrationNews =
  | { kind: "connected"; fd: number }
  /** A push channel is open, on which somebody is to push. */
  | { kind: "push channel"; fd: number }
  /** Nobody is there yet; it is tried again. */
  | { kind: "waiting" }
  | Stamped<SourceEvent>;

/** How the migration thread ended: an error says where it leaves the guest. */
export type MigrationResult =
  | { ok: true; outcome: SourceOutcome }
  /** `paused`: the link broke after the switchover, and the rest may follow over another one. */
  | { ok: false; place: GuestPlace; paused: boolean; error: ErrorRecord };

/** For a thread that pushes on a channel beside the main one. */
export interface PushTask {
  guest: SourceGuestData;
  shared: SourceSharedData;
  settings: SourceSettings;
  /** Which one, from 1 on. */
  index: number;
  fd: number;
  /** The main connection. */
  mainFd: number;
  stopFd: number;
  peer: string;
}

export interface ReturnPathTask {
  guest: SourceGuestData;
  shared: SourceSharedData;
  fd: number;
  stopFd: number;
  peer: string;
}

/** How the incoming thread gets its connection. */
export type Arrival =
  | {
      kind: "listen";
      fd: number;
      /** From where. */
      allow: readonly AllowRule[];
      /** Nobody but the one source can come. */
      alone?: boolean;
    }
  | { kind: "descriptor"; fd: number };

export interface IncomingTask {
  guest: DestGuestData;
  shared: DestSharedData;
  arrival: Arrival;
  stopFd: number;
  /** Raised to end the multifd thread, -1 where there is none. */
  multifdEndFd: number;
  lockMemory: boolean;
  linkTimeoutMs: number;
  /** Connections beside the main one on which the push may come. */
  pushChannels: number;
}

export type IncomingNews =
  | { kind: "connected"; fd: number; others: number[]; peer: string }
  /** Who was connected did not get far, and the others are closed; somebody else may come. */
  | { kind: "turnedAway" }
  /** The descriptor under which the source's connection will be, once it has come back. */
  | { kind: "resuming"; fd: number }
  | { kind: "memory"; memory: GuestMemory }
  | ArrivalNews
  | Stamped<DestEvent>;

export type IncomingResult = IncomingOutcome;

/** For the listen thread, given as soon as the guest's memory is known. */
export interface ListenTask {
  guest: DestGuestData;
  shared: DestSharedData;
  memory: GuestMemory;
  fd: number;
  stopFd: number;
  /** Listening socket for a source that comes back, -1 where none can. */
  listenFd: number;
  allow: readonly AllowRule[];
  /** How long it is waited for. */
  recoverTimeoutMs: number;
  linkTimeoutMs: number;
  /** Raised to end the fault thread. */
  faultStopFd: number;
  /** Raised to end the threads of further push channels. */
  pushStopFd: number;
  peer: string;
}

/** For the fault thread, given at the same time. */
export interface FaultTask {
  guest: DestGuestData;
  shared: DestSharedData;
  memory: GuestMemory;
  /** The main connection, for page requests. */
  fd: number;
  /** Listening socket for urgent channels, -1 if there can be none. */
  listenFd: number;
  allow: readonly AllowRule[];
  early: number[];
  linkTimeoutMs: number;
  stopFd: number;
  faultStopFd: number;
  peer: string;
}

/** What the fault thread tells of: a push channel was found, which somebody is to read. */
export type FaultNews = WarningNews | { kind: "push channel"; fd: number };

/** For a thread that reads a push channel beside the main one. */
export interface PushedTask {
  guest: DestGuestData;
  shared: DestSharedData;
  memory: GuestMemory;
  /** Which one, from 1 on. */
  index: number;
  fd: number;
  /** The main connection. */
  mainFd: number;
  linkTimeoutMs: number;
  /** Raised when it is to end. */
  stopFd: number;
  peer: string;
}

/** For the multifd thread, given at the same time for a source that is not this program. */
export interface MultifdTask {
  guest: DestGuestData;
  shared: DestSharedData;
  memory: GuestMemory;
  /** The main connection. */
  fd: number;
  /** Listening socket for further connections. */
  listenFd: number;
  early: number[];
  linkTimeoutMs: number;
  stopFd: number;
  /** Raised when no more pages come on its channels. */
  endFd: number;
  peer: string;
}

export type WarningNews = { kind: "warning"; message: string };

/** For the thread that waits for the end of a process, known by its pidfd. */
export interface WatchTask {
  processFd: number;
  /** Raised when nobody wants to know any more. */
  stopFd: number;
}

/** For the thread of a holder, which serves its user alone. */
export interface HoldTask {
  listenFd: number;
  stopFd: number;
  uid: number;
}

/** Something that happened at a holder, for people. */
export interface HoldNews {
  message: string;
  refused: boolean;
}

/** What a stress worker is told to do. */
export type StressTask =
  | { kind: "run"; setup: StressSetup; worker: number }
  | { kind: "audit"; setup: StressSetup; worker: number };

/** What an audit by one worker found: in memory, and against a re-run of the worker's life. */
export interface StressVerdict {
  audit: AuditResult;
  /** Undefined when the life was too long to repeat. */
  model: ModelVerdict | undefined;
}

export type StressResult = StressVerdict | undefined;
