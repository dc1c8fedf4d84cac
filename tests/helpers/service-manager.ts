/** The service manager of tests/fixtures/service-manager.ts, as a process that a test commands. */
import { join } from "node:path";
import { PROJECT_ROOT, spawn } from "./spawn.ts";
import type { RunningProgram } from "./spawn.ts";

const FIXTURE = join(PROJECT_ROOT, "tests", "fixtures", "service-manager.ts");

/** A datagram that came, and the inodes of the descriptors that came with it. */
export interface NotifyMessage {
  message: string;
  inodes: number[];
}

export class ServiceManager implements AsyncDisposable {
  /** Its output, and that of the services that it starts. */
  readonly program: RunningProgram;

  private constructor(program: RunningProgram) {
    this.program = program;
  }

  /** Starts one that listens at a path, or at a name behind an `@`. */
  static async start(where: string): Promise<ServiceManager> {
    const program = spawn([process.execPath, FIXTURE, where]);
    await program.stdout.waitForLine(/"ready"/);
    return new ServiceManager(program);
  }

  /** Starts a service; its process, once it runs. */
  async startService(words: readonly string[]): Promise<number> {
    const { stdout } = this.program;
    const from = stdout.text.length;
    this.program.writeLine(JSON.stringify(words));
    const [, pid] = await stdout.waitForLine(/^\{"started":(\d+)\}$/, { from });
    return Number(pid);
  }

  /** The datagrams that have come. */
  get messages(): NotifyMessage[] {
    const lines = this.program.stdout.text.split("\n").filter((line) => line.startsWith('{"mess'));
    return lines.map((line) => JSON.parse(line) as NotifyMessage);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.program[Symbol.asyncDispose]();
  }
}
