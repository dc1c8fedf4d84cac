/**
 * Headless Chromium, told what to do over its DevTools protocol (a WebSocket):
 *
 *     await using browser = await Browser.start();
 *     const page = await browser.open("report.html", { width: 360 });
 *     expect(page.problems).toEqual([]);
 *     expect(await page.evaluate("document.title")).toBe("…");
 */
import { pathToFileURL } from "node:url";
import { withDeadline } from "./deadline.ts";
import { spawn } from "./spawn.ts";
import type { RunningProgram } from "./spawn.ts";
import { TemporaryDirectory } from "./temporary-directory.ts";

/** Its executable, or null. */
export function findChromium(): string | null {
  return Bun.which("chromium") ?? Bun.which("chromium-browser");
}

const FLAGS = [
  ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
  ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
  ...["--hide-scrollbars", "--remote-debugging-port=0"],
];

interface Message {
  id?: number;
  sessionId?: string;
  method?: string;
  params?: Record<string, unknown>;
  result?: Record<string, unknown>;
  error?: { message: string };
}

export interface View {
  /** In CSS pixels. */
  width: number;
  height?: number;
  dark?: boolean;
}

/** A page that has been loaded. */
export interface LoadedPage {
  /** Errors of scripts, what the console says, and every request but that for the page itself. */
  readonly problems: readonly string[];
  /** The value of an expression in the page, which must be JSON. */
  evaluate<T>(expression: string): Promise<T>;
}

export class Browser implements AsyncDisposable {
  readonly #program: RunningProgram;
  readonly #profile: TemporaryDirectory;
  readonly #socket: WebSocket;
  readonly #answers = new Map<number, (message: Message) => void>();
  readonly #listeners = new Set<(message: Message) => void>();
  #last = 0;

  private constructor(program: RunningProgram, profile: TemporaryDirectory, socket: WebSocket) {
    this.#program = program;
    this.#profile = profile;
    this.#socket = socket;
    socket.addEventListener("message", ({ data }) => this.#hear(JSON.parse(String(data))));
  }

  static async start(): Promise<Browser> {
    const path = findChromium();
    if (path === null) throw new Error("there is no chromium");
    const profile = new TemporaryDirectory("browser");
    const program = spawn([path, ...FLAGS, `--user-data-dir=${profile.path}`, "about:blank"]);
    const [, url = ""] = await program.stderr.waitForLine(/DevTools listening on (ws:\S+)/);
    const socket = new WebSocket(url);
    const opened = Promise.withResolvers<void>();
    socket.addEventListener("open", () => opened.resolve());
    socket.addEventListener("error", () => opened.reject(new Error("no DevTools")));
    await withDeadline(opened.promise, "the browser's DevTools");
    return new Browser(program, profile, socket);
  }

  /** Opens a file in a window of that size, and waits until it is loaded. */
  async open(file: string, { width, height = 800, dark = false }: View): Promise<LoadedPage> {
    const url = pathToFileURL(file).href;
    const { targetId } = await this.#send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.#send("Target.attachToTarget", { targetId, flatten: true });
    const session = String(sessionId);
    const problems: string[] = [];
    const loaded = Promise.withResolvers<void>();
    this.#listeners.add((message) => {
      if (message.sessionId !== session) return;
      if (message.method === "Page.loadEventFired") loaded.resolve();
      const problem = problemOf(message, url);
      if (problem !== undefined) problems.push(problem);
    });
    for (const domain of ["Runtime", "Log", "Network", "Page"]) {
      await this.#send(`${domain}.enable`, {}, session);
    }
    const metrics = { width, height, deviceScaleFactor: 1, mobile: false };
    await this.#send("Emulation.setDeviceMetricsOverride", metrics, session);
    const features = [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }];
    await this.#send("Emulation.setEmulatedMedia", { features }, session);
    await this.#send("Page.navigate", { url }, session);
    await withDeadline(loaded.promise, `the browser to load ${file}`);
    return {
      problems,
      evaluate: async <T>(expression: string): Promise<T> => {
        const options = { expression, returnByValue: true, awaitPromise: true };
        const { result, exceptionDetails } = await this.#send("Runtime.evaluate", options, session);
        if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails));
        return (result as { value: T }).value;
      },
    };
  }

  async #send(
    method: string,
    params: Record<string, unknown>,
    sessionId?: string,
  ): Promise<Record<string, unknown>> {
    const id = ++this.#last;
    const { promise, resolve } = Promise.withResolvers<Message>();
    this.#answers.set(id, resolve);
    this.#socket.send(JSON.stringify({ id, method, params, sessionId }));
    const { result, error } = await withDeadline(promise, `the browser's answer to ${method}`);
    if (error !== undefined) throw new Error(`${method}: ${error.message}`);
    return result ?? {};
  }

  #hear(message: Message): void {
    if (message.id === undefined) {
      for (const listener of this.#listeners) listener(message);
      return;
    }
    this.#answers.get(message.id)?.(message);
    this.#answers.delete(message.id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    await this.#program[Symbol.asyncDispose]();
    await this.#profile[Symbol.asyncDispose]();
  }
}

/** What a page must not do. */
function problemOf({ method, params = {} }: Message, url: string): string | undefined {
  switch (method) {
    case "Runtime.exceptionThrown":
    case "Runtime.consoleAPICalled":
    case "Log.entryAdded":
      return `${method}: ${JSON.stringify(params)}`;
    case "Network.requestWillBeSent": {
      const { request } = params as { request: { url: string } };
      const own = request.url === url || request.url.startsWith("data:");
      return own ? undefined : `it asked for ${request.url}`;
    }
    default:
      return undefined;
  }
}
