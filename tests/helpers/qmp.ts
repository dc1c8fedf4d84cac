/**
 * The program's own client of QEMU's machine protocol as tests use it: any command, answers of any
 * shape, and waiting for an event that may have come already.
 */
import * as z from "zod";

import { QmpClient as Client } from "../../src/qmp/client.ts";
import type { QmpEvent } from "../../src/qmp/client.ts";
import { DEFAULT_WAIT_MS, waitUntil } from "./deadline.ts";

export type { QmpEvent };

/** How long QEMU may take to answer one command. */
const ANSWER_LIMIT_MS = 20_000;

export class QmpClient implements AsyncDisposable {
  /** Every event since the connection was made, oldest first. */
  readonly events: QmpEvent[];
  readonly #client: Client;

  private constructor(client: Client, events: QmpEvent[]) {
    this.#client = client;
    this.events = events;
  }

  /** Connects to the monitor at the unix socket `path` and leaves its negotiation mode. */
  static async connect(path: string, options: { outOfBand?: boolean } = {}): Promise<QmpClient> {
    const events: QmpEvent[] = [];
    const onEvent = (event: QmpEvent): unknown => events.push(event);
    return new QmpClient(await Client.connect(path, { ...options, onEvent }), events);
  }

  /**
   * Runs one command and gives its result. `outOfBand` runs it beside the others (`exec-oob`),
   * which only a connection made with `outOfBand` may do.
   */
  async execute<T = unknown>(
    command: string,
    parameters: Record<string, unknown> = {},
    options: { outOfBand?: boolean; limitMs?: number } = {},
  ): Promise<T> {
    const { outOfBand = false, limitMs = ANSWER_LIMIT_MS } = options;
    const how = { outOfBand, timeoutMs: limitMs };
    return (await this.#client.execute(command, parameters, z.unknown(), how)) as T;
  }

  /**
   * The first event `name` that `accept` agrees to, counting those that came before the call, so
   * that none is missed which a fast machine sends early. `from` leaves out the first ones of
   * `events`, for a test that waits for the same thing a second time.
   */
  async waitForEvent(
    name: string,
    options: { accept?: (event: QmpEvent) => boolean; from?: number; limitMs?: number } = {},
  ): Promise<QmpEvent> {
    const { accept = () => true, from = 0, limitMs = DEFAULT_WAIT_MS } = options;
    let index = from;
    const search = (): QmpEvent | undefined => {
      for (; index < this.events.length; index++) {
        const event = this.events[index];
        if (event?.name === name && accept(event)) return event;
      }
      if (this.#client.failure !== undefined) throw this.#client.failure;
      return undefined;
    };
    try {
      return await waitUntil(search, `QMP event ${name}`, limitMs);
    } catch (cause) {
      const seen = this.events.map((event) => JSON.stringify(event)).join("\n");
      throw new Error(`no QMP event ${name}; seen were:\n${seen}`, { cause });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.close();
  }
}
