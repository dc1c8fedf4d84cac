import { describe, expect, test } from "bun:test";
import { PaceChooser } from "../../../src/source/pace-chooser.ts";

const LOOK_MS = 50;
const MIN_RTT_US = 100;
const MB = 1e6;
/** What the network holds before it loses something, in bytes. */
const QUEUE_BYTES_MAX = 5 * MB;

/** A network of one rate with a queue before it, and a push that always has something to send. */
class Network {
  /** Bytes a second that it carries. */
  rate: number;
  /** Bytes that wait in it. */
  queued = 0;
  /** Round trips are longer by this for reasons that are not the push's. */
  noiseUs = 0;
  /** The push sends no more than this by itself. */
  readonly #sends: number;

  constructor(rate: number, sends = Infinity) {
    this.rate = rate;
    this.#sends = sends;
  }

  /** How long what is sent now waits there, in µs. */
  get delayUs(): number {
    return (this.queued / this.rate) * 1e6;
  }

  /** Lets the push send for some looks; returns what arrived a second in each. */
  carry(chooser: PaceChooser, looks: number): number[] {
    return Array.from({ length: looks }, () => {
      const pace = chooser.pace === 0 ? Infinity : chooser.pace;
      const sent = Math.min(pace, this.#sends) * (LOOK_MS / 1000);
      const carried = this.rate * (LOOK_MS / 1000);
      const room = carried + QUEUE_BYTES_MAX - this.queued;
      const backlog = this.queued + Math.min(sent, room);
      const ackedBytes = Math.min(backlog, carried);
      this.queued = backlog - ackedBytes;
      const rttUs = MIN_RTT_US + this.delayUs + this.noiseUs;
      const waitedMs = sent > room || pace < this.#sends ? LOOK_MS : 0;
      chooser.look({ ms: LOOK_MS, waitedMs, ackedBytes, rttUs, minRttUs: MIN_RTT_US });
      return (ackedBytes / LOOK_MS) * 1000;
    });
  }
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

describe("the pace of the push", () => {
  test("leaves the queue of the network nearly empty, and little of its rate unused", () => {
    const network = new Network(125 * MB);
    const chooser = new PaceChooser();
    network.carry(chooser, 40);
    const delays: number[] = [];
    const rates: number[] = [];
    for (let look = 0; look < 100; look++) {
      rates.push(...network.carry(chooser, 1));
      delays.push(network.delayUs);
    }
    expect(mean(delays)).toBeLessThan(1500);
    expect(mean(rates)).toBeGreaterThan(0.93 * network.rate);
  });

  test("follows a network that carries more, or less, than before", () => {
    const network = new Network(125 * MB);
    const chooser = new PaceChooser();
    network.carry(chooser, 40);
    network.rate = 200 * MB;
    network.carry(chooser, 30);
    expect(mean(network.carry(chooser, 40))).toBeGreaterThan(0.9 * network.rate);
    network.rate = 50 * MB;
    network.carry(chooser, 100);
    const delays = Array.from({ length: 40 }, () => {
      network.carry(chooser, 1);
      return network.delayUs;
    });
    expect(mean(delays)).toBeLessThan(5000);
  });

  test("goes no further down for a thread that gets no processor for a while", () => {
    const network = new Network(125 * MB);
    const chooser = new PaceChooser();
    network.carry(chooser, 40);
    // It sends a tenth, and what it sends is acknowledged late.
    const stalled = { ms: LOOK_MS, waitedMs: LOOK_MS, ackedBytes: 0.6 * MB };
    for (let look = 0; look < 3; look++) {
      chooser.look({ ...stalled, rttUs: 3000, minRttUs: MIN_RTT_US });
    }
    expect(chooser.pace).toBeGreaterThan(0.7 * network.rate);
    network.queued = 0;
    expect(mean(network.carry(chooser, 10))).toBeGreaterThan(0.75 * network.rate);
  });

  test("is none where the network is fast: its ends are what is slow there", () => {
    const network = new Network(500 * MB);
    const chooser = new PaceChooser();
    network.carry(chooser, 40);
    expect(chooser.pace).toBe(0);
    const [slower, later] = [new Network(125 * MB), new PaceChooser()];
    slower.carry(later, 40);
    expect(later.pace).toBeGreaterThan(0);
    slower.rate = 500 * MB;
    slower.carry(later, 40);
    expect(later.pace).toBe(0);
  });

  test("is none where the push is slower than the network", () => {
    const network = new Network(125 * MB, 60 * MB);
    const chooser = new PaceChooser();
    network.noiseUs = 10_000;
    const paces = Array.from({ length: 20 }, () => {
      network.carry(chooser, 1);
      return chooser.pace;
    });
    expect(paces.every((pace) => pace === 0)).toBe(true);
  });

  test("is given up where the queue is somebody else's, for longer each time", () => {
    const network = new Network(125 * MB);
    const chooser = new PaceChooser();
    network.noiseUs = 10_000;
    const rates = network.carry(chooser, 1000);
    expect(Math.min(...rates)).toBeGreaterThan(0.7 * network.rate);
    expect(mean(rates)).toBeGreaterThan(0.97 * network.rate);
    const slowed = (some: readonly number[]): number =>
      some.filter((rate) => rate < 0.99 * network.rate).length;
    expect(slowed(rates.slice(0, 300))).toBeGreaterThan(0);
    expect(slowed(rates.slice(-700))).toBeLessThan(slowed(rates.slice(0, 300)));
  });
});
