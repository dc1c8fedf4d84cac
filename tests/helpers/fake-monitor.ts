/**
 * A QEMU monitor of a few lines, for what no real QEMU does on demand: refusals, silence, nonsense,
 * an end in the middle.
 *
 *     using monitor = new FakeMonitor(directory.file("qmp"), ({ command, id }) => [{ return: {}, id }]);
 */

/** One command as it came. */
export interface FakeRequest {
  command: string;
  outOfBand: boolean;
  id: number;
  parameters: Record<string, unknown> | undefined;
}

/** What a monitor says to a command: messages in one write; nothing at all ends the connection. */
export type FakeAnswer = (request: FakeRequest) => object[];

/** What a monitor of QEMU says first. */
export const GREETING = {
  QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 }, package: "" }, capabilities: ["oob"] },
};

/** An event as QEMU sends it. */
export function fakeEvent(event: string, data: object = {}, seconds = 1): object {
  return { event, data, timestamp: { seconds, microseconds: 500_000 } };
}

export class FakeMonitor implements Disposable {
  /** Every command so far, but for the negotiation. */
  readonly requests: FakeRequest[] = [];
  /** Parameters of the last negotiation. */
  negotiated: Record<string, unknown> | undefined;
  readonly #server: Bun.UnixSocketListener<undefined>;
  readonly #sockets = new Set<Bun.Socket>();

  /** `greeting`: what is said first, as it stands; the greeting of a QEMU 7.2 if absent. */
  constructor(path: string, answer: FakeAnswer, greeting = `${JSON.stringify(GREETING)}\r\n`) {
    this.#server = Bun.listen({
      unix: path,
      socket: {
        open: (socket) => {
          this.#sockets.add(socket);
          if (greeting !== "") socket.write(greeting);
        },
        data: (socket, bytes) => {
          for (const line of bytes.toString().trim().split("\n")) {
            const replies = this.#answer(line, answer);
            if (replies === undefined) socket.end();
            else socket.write(replies);
          }
        },
      },
    });
  }

  #answer(line: string, answer: FakeAnswer): string | undefined {
    const said = JSON.parse(line) as Record<string, unknown>;
    const id = Number(said["id"]);
    const outOfBand = said["execute"] === undefined;
    const command = String(said[outOfBand ? "exec-oob" : "execute"]);
    const parameters = said["arguments"] as Record<string, unknown> | undefined;
    if (command === "qmp_capabilities") {
      this.negotiated = parameters;
      return `${JSON.stringify({ return: {}, id })}\r\n`;
    }
    const request = { command, outOfBand, id, parameters };
    this.requests.push(request);
    const replies = answer(request);
    if (replies.length === 0) return undefined;
    return replies.map((reply) => `${JSON.stringify(reply)}\r\n`).join("");
  }

  /** Says something to everybody who is connected, as it stands. */
  say(text: string): void {
    for (const socket of this.#sockets) socket.write(text);
  }

  [Symbol.dispose](): void {
    this.#server.stop(true);
  }
}
