/**
 * Two hosts with a link between them that can be cut so that nobody is told, as a switch that loses
 * its power does: packets are lost, and nothing is reset. They are network namespaces of this host,
 * and the link a pair of virtual Ethernet devices; nothing of it is seen outside.
 *
 *     await using hosts = await TwoHosts.start();
 *     await using dest = await startDest({ before: hosts.one.enter, … });
 *     await using source = startSource({ before: hosts.other.enter, … });
 *     await hosts.cut();
 *     await hosts.mend();
 */
import { readlinkSync } from "node:fs";

import { waitUntil } from "./deadline.ts";
import type { Need } from "./need.ts";
import { run, spawn } from "./spawn.ts";
import type { RunningProgram } from "./spawn.ts";

const DEVICE = "link0";
/** Of a device that does not exist: what is sent to it is taken by nobody. */
const NOBODY = "02:00:00:00:00:ff";

/** Whether this process may make network namespaces, and set them up. */
export function needTwoHosts(): Need {
  const words = ["unshare", "--net", "ip", "link", "add", "type", "veth"];
  const possible = Bun.which("ip") !== null && Bun.spawnSync(words).success;
  const missing = possible ? undefined : "run as root, with the packages iproute2 and util-linux";
  return { what: "the right to make network namespaces", missing };
}

/** One of the two. */
export interface Host {
  /** Words before a command that run it there. */
  enter: readonly string[];
  /** Its address on the link. */
  address: string;
}

interface Place extends Host {
  program: RunningProgram;
  hardware: string;
}

/** A host with no network; it lasts as long as the program that holds it. */
async function startHost(number: number): Promise<Place> {
  const program = spawn(["unshare", "--net", "cat"]);
  const namespace = (pid: number | "self"): string => readlinkSync(`/proc/${pid}/ns/net`);
  await waitUntil(() => namespace(program.pid) !== namespace("self"), "a network namespace");
  return {
    program,
    enter: ["nsenter", `--net=/proc/${program.pid}/ns/net`],
    address: `10.77.0.${number}`,
    hardware: `02:00:00:00:00:0${number}`,
  };
}

export class TwoHosts implements AsyncDisposable {
  readonly #places: readonly [Place, Place];

  private constructor(one: Place, other: Place) {
    this.#places = [one, other];
  }

  /** Makes them, and the link. */
  static async start(): Promise<TwoHosts> {
    const hosts = new TwoHosts(await startHost(1), await startHost(2));
    const [one, other] = hosts.#places;
    await hosts.#ip(
      one,
      `link add ${DEVICE} type veth peer name ${DEVICE} netns ${other.program.pid}`,
    );
    for (const { place } of hosts.#sides) {
      await hosts.#ip(
        place,
        `link set ${DEVICE} address ${place.hardware}`,
        `address add ${place.address}/24 dev ${DEVICE}`,
        `link set ${DEVICE} up`,
      );
    }
    await hosts.mend();
    return hosts;
  }

  get one(): Host {
    return this.#places[0];
  }

  get other(): Host {
    return this.#places[1];
  }

  get #sides(): { place: Place; peer: Place }[] {
    const [one, other] = this.#places;
    return [
      { place: one, peer: other },
      { place: other, peer: one },
    ];
  }

  /** From now on all packets are lost, in both directions. */
  async cut(): Promise<void> {
    await this.#direct(() => NOBODY);
  }

  /** Packets arrive again. */
  async mend(): Promise<void> {
    await this.#direct(({ hardware }) => hardware);
  }

  /** Holds the link to a rate in each direction, as `tc` writes it: "1gbit". */
  async limitRate(rate: string): Promise<void> {
    for (const { enter } of this.#places) {
      const limit = ["tbf", "rate", rate, "burst", "128kb", "latency", "20ms"];
      const words = [...enter, "tc", "qdisc", "replace", "dev", DEVICE, "root", ...limit];
      const { exitCode, stderr } = await run(words);
      if (exitCode !== 0) throw new Error(`tc: ${stderr}`);
    }
  }

  /** Says to which device each side sends what is meant for the other. */
  async #direct(hardwareOf: (peer: Place) => string): Promise<void> {
    const directing = this.#sides.map(async ({ place, peer }) => {
      const to = `${peer.address} lladdr ${hardwareOf(peer)}`;
      await this.#ip(place, `neighbour replace ${to} dev ${DEVICE} nud permanent`);
    });
    await Promise.all(directing);
  }

  async #ip({ enter }: Place, ...commands: readonly string[]): Promise<void> {
    const input = commands.join("\n");
    const { exitCode, stderr } = await run([...enter, "ip", "-batch", "-"], { input });
    if (exitCode !== 0) throw new Error(`ip: ${stderr}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { program } of this.#places) await program[Symbol.asyncDispose]();
  }
}
