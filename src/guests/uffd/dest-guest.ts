/**
 * The memory of a VMM that has handed it over, as the dest role sees it. The VMM has its devices and
 * runs by itself; what arrives is the memory of a guest that was kept, and goes where the VMM's
 * regions are.
 */
import type { DestGuest, DeviceLoading, ForeignMemory } from "../../dest/guest.ts";
import { liveSource } from "../../dest/foreign-memory.ts";
import { AddressMap } from "../../ram/address-map.ts";
import type { RamBlock } from "../../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { FEATURE, hostPageBytesOf } from "../../stream/hello.ts";
import type { StreamConfiguration } from "../../stream/header.ts";
import type { RamSetupBlock } from "../../stream/ram-setup.ts";
import { STRESS_MACHINE } from "../stress/machine.ts";
import { commonPageSize } from "./handover.ts";
import type { TakenHandover } from "./receive.ts";
import { placeRegions } from "./regions.ts";

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
  #map: AddressMap | undefined;

  /** @throws HandoverError where its pages are of sizes that cannot be filled. */
  constructor(handover: TakenHandover) {
    this.#handover = handover;
    this.#pageSize = commonPageSize(handover.regions);
    this.needs = this.#pageSize === TARGET_PAGE_SIZE ? FEATURE.smallPages : FEATURE.largePages;
  }

  configure(configuration: StreamConfiguration | undefined): void {
    if (configuration?.machine === STRESS_MACHINE) throw liveSource();
  }

  /** Blocks with the VMM's pages: the source is told to send such. @throws StreamError. */
  prepareMemory(setup: readonly RamSetupBlock[]): RamBlock[] {
    const blocks = setup.map(({ name, length }, index) => {
      const pageSize = hostPageBytesOf({ length }, this.#pageSize);
      return { index, name, length, pageSize, address: 0 };
    });
    this.#map = AddressMap.of(placeRegions(this.#handover.regions, blocks));
    return blocks;
  }

  foreign(): ForeignMemory {
    if (this.#map === undefined) throw new Error("the RAM blocks are not known yet");
    return { userfaultFd: this.#handover.userfaultFd, map: this.#map };
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
