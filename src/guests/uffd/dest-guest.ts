/**
 * The memory of a VMM that has handed it over, as the dest role sees it. The VMM has its devices and
 * runs by itself; what arrives is the memory of a guest that was kept, and goes where the VMM's
 * regions are.
 */
import type {
  ArrivedPart,
  DestGuest,
  DeviceLoading,
  ForeignMemory,
  StreamFacts,
} from "../../dest/guest.ts";
import type { PageState } from "../../dest/shared.ts";
import { AddressMap } from "../../ram/address-map.ts";
import type { RamBlock } from "../../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { FEATURE, hostPageBytesOf } from "../../stream/hello.ts";
import type { GuestIdentity } from "../../stream/identity.ts";
import type { StreamConfiguration } from "../../stream/header.ts";
import type { RamSetupBlock } from "../../stream/ram-setup.ts";
import { isMemoryOnly } from "../stored/memory-only.ts";
import { STRESS_MACHINE } from "../stress/machine.ts";
import { StreamError } from "../../util/errors.ts";
import { commonPageSize } from "./handover.ts";
import { KeptState } from "./kept-state.ts";
import type { TakenHandover } from "./receive.ts";
import { describeRest, placeRegions } from "./regions.ts";

export class UffdDestGuest implements DestGuest {
  readonly memory = "foreign";
  readonly devices: DeviceLoading = {
    kind: "opaque",
    keep: () => {
      // The VMM has its own.
    },
  };
  readonly needs: number;
  readonly #handover: TakenHandover;
  readonly #pageSize: number;
  readonly #keptFd: number | undefined;
  #kept: KeptState | undefined;
  /** The source has nothing but what a VMM has saved of such memory. */
  #isMemoryAlone = false;
  #memory: ForeignMemory | undefined;

  /**
   * `keptFd` is where its state outlives this process (KeptState).
   * @throws HandoverError where its pages are of sizes that cannot be filled.
   */
  constructor(handover: TakenHandover, keptFd?: number) {
    this.#handover = handover;
    this.#keptFd = keptFd;
    this.#pageSize = commonPageSize(handover.regions);
    this.needs = this.#pageSize === TARGET_PAGE_SIZE ? FEATURE.smallPages : FEATURE.largePages;
  }

  configure(configuration: StreamConfiguration | undefined): void {
    this.#isMemoryAlone = isMemoryOnly(configuration?.machine ?? "");
    if (configuration?.machine !== STRESS_MACHINE) return;
    const what = "The source sends a stress guest, which runs, or can go on, only as one";
    throw new StreamError("LIVE_SOURCE", what, { hint: "dest --guest stress" });
  }

  /** Blocks with the VMM's pages: the source is told to send such. @throws StreamError. */
  prepareMemory(setup: readonly RamSetupBlock[]): RamBlock[] {
    const blocks = setup.map(({ name, length }, index) => {
      const pageSize = hostPageBytesOf({ length }, this.#pageSize);
      return { index, name, length, pageSize, address: 0 };
    });
    const kept = this.#openKept()?.prepare(blocks);
    const map =
      kept === undefined
        ? AddressMap.of(placeRegions(this.#handover.regions, blocks))
        : new AddressMap(kept.map);
    const { regions, userfaultFd } = this.#handover;
    const notice = this.#isMemoryAlone ? describeRest(regions, blocks) : undefined;
    this.#memory = { userfaultFd, map, kept, notice };
    return blocks;
  }

  #openKept(): KeptState | undefined {
    if (this.#keptFd !== undefined) this.#kept ??= new KeptState(this.#keptFd);
    return this.#kept;
  }

  foreign(): ForeignMemory {
    if (this.#memory === undefined) throw new Error("the RAM blocks are not known yet");
    return this.#memory;
  }

  takeOver(_: PageState, facts: StreamFacts): void {
    this.#kept?.takeOver(facts);
  }

  knownIdentity(): GuestIdentity | undefined {
    return this.#openKept()?.identity;
  }

  bindIdentity(identity: GuestIdentity | undefined): void {
    this.#openKept()?.bind(identity);
  }

  resume(): ArrivedPart {
    const state = this.#openKept();
    if (state === undefined) throw new Error("nothing was kept of the guest");
    const { blocks, ...kept } = state.reopen();
    const map = new AddressMap(kept.map);
    this.#memory = { userfaultFd: this.#handover.userfaultFd, map, kept };
    const { received, removed } = kept;
    return { blocks, pages: { received, removed }, ...state.facts, sameBoot: true };
  }

  sinkData(): undefined {
    return undefined;
  }

  run(): void {
    // It has run since the handover.
  }

  finish(commit: () => void): void {
    commit();
  }
}
