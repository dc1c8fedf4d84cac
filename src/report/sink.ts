/**
 * Where the events of --json go. Apart from their schemas, so that a command that only prints its
 * help does not load zod.
 */
import type { NewEvent } from "./events.ts";

/** Where events go. */
export interface EventSink {
  emit(event: NewEvent): void;
}

/** For commands without --json. */
export const noEvents: EventSink = { emit: () => {} };

/** Unread bytes in a pipe's queue above which progress events are left out. */
const QUEUED_BYTES_MAX = 1024 * 1024;

/** What an event writer needs of standard output. */
export interface EventStream {
  write(text: string): unknown;
  readonly writableLength?: number;
}

/** Writes events as JSON lines. A reader that does not keep up loses progress, nothing else. */
export function createEventWriter(stream: EventStream): EventSink {
  return {
    emit: (event) => {
      const queued = stream.writableLength ?? 0;
      if (event.event === "progress" && queued > QUEUED_BYTES_MAX) return;
      const { event: name, ...fields } = event;
      const line = { event: name, time: new Date().toISOString(), ...fields };
      stream.write(`${JSON.stringify(line)}\n`);
    },
  };
}
