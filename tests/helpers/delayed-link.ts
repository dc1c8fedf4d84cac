/**
 * A link with a delay of our own making between a source and a destination of this host, which tells
 * how much was under way on it:
 *
 *     await using link = await DelayedLink.start(dest.peer, 5);
 *     await using source = startSource({ to: link.uri });
 *     …
 *     expect(await link.mostUnderWay()).toBeGreaterThan(…);
 */
import { join } from "node:path";

import { PROJECT_ROOT, spawn } from "./spawn.ts";
import type { RunningProgram } from "./spawn.ts";

const RELAY = join(PROJECT_ROOT, "tests", "fixtures", "delaying-relay.ts");

export class DelayedLink implements AsyncDisposable {
  /** Where the source connects to. */
  readonly uri: string;
  readonly #program: RunningProgram;
  readonly #lines: AsyncIterator<string>;

  private constructor(program: RunningProgram, lines: AsyncIterator<string>, port: string) {
    this.#program = program;
    this.#lines = lines;
    this.uri = `tcp:127.0.0.1:${port}`;
  }

  /** A link to `target` (`tcp:127.0.0.1:PORT`) on which each byte takes `delayMs` in each direction. */
  static async start(target: string, delayMs: number): Promise<DelayedLink> {
    const port = target.slice(target.lastIndexOf(":") + 1);
    const program = spawn([process.execPath, RELAY, port, String(delayMs)]);
    const lines = program.stdout.lines()[Symbol.asyncIterator]();
    const { value = "" } = (await lines.next()) as { value?: string };
    return new DelayedLink(program, lines, value);
  }

  /** The most bytes that were ever under way towards the destination, in one connection. */
  async mostUnderWay(): Promise<number> {
    this.#program.writeLine("");
    const { value } = (await this.#lines.next()) as { value?: string };
    return Number(value);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program[Symbol.asyncDispose]();
  }
}
