/**
 * A link of a driven QEMU that breaks after the switch (`postcopy-paused`): QEMU is told to connect again
 * (`migrate -r`), again and again, until the operator's patience is over.
 */
import { QmpError } from "../../qmp/client.ts";
import type { QmpClient } from "../../qmp/client.ts";
import { Retries } from "../../util/retries.ts";

/** How long a recovery may take to shake hands. */
const HANDSHAKE_TIMEOUT_MS = 10_000;

export class LinkRecovery {
  readonly #qmp: Pick<QmpClient, "run">;
  readonly #timeoutMs: number;
  readonly #paused: () => void;
  #retries: Retries | undefined;
  #broken = false;
  #count = 0;

  /** There are tries for `timeoutMs` from the first break on, of which `paused` is told. */
  constructor(qmp: Pick<QmpClient, "run">, timeoutMs: number, paused: () => void) {
    this.#qmp = qmp;
    this.#timeoutMs = timeoutMs;
    this.#paused = paused;
  }

  /** How often the link was made anew. */
  get count(): number {
    return this.#count;
  }

  /** The link is there. */
  noteLink(): void {
    if (this.#broken) this.#count++;
    this.#broken = false;
  }

  /** The link is broken: has QEMU connect again, after a pause; false when patience is over. */
  async connect(uri: string): Promise<boolean> {
    this.#broken = true;
    if (this.#retries === undefined) {
      this.#retries = new Retries(this.#timeoutMs);
      this.#paused();
    }
    if (!(await this.#retries.next())) return false;
    // It may have gone on since it was asked, or be in the middle of an earlier try.
    await this.#tell("migrate", { uri, resume: true });
    return true;
  }

  /**
   * QEMU has been trying for `forMs`. A try that hangs is broken off: QEMU before 9.1 does not notice
   * that its peer is gone. False when patience is over.
   */
  async shakeHands(forMs: number): Promise<boolean> {
    if (forMs <= HANDSHAKE_TIMEOUT_MS) return true;
    await this.#tell("migrate-pause");
    return this.#retries?.over !== true;
  }

  /** Has the next try come at once. */
  now(): void {
    this.#retries?.now();
  }

  /** There are no more tries. */
  end(): void {
    this.#retries?.end();
  }

  /** Tells QEMU something that it may refuse. */
  async #tell(command: string, parameters: Readonly<Record<string, unknown>> = {}): Promise<void> {
    try {
      await this.#qmp.run(command, parameters);
    } catch (error) {
      if (!(error instanceof QmpError)) throw error;
    }
  }
}
