/** The keeper of `dest --guest uffd:SOCKET`: what it is given, what comes back of it, and when it ends. */
import { closeDescriptor, POLL, setNonBlocking } from "../../syscalls/descriptor.ts";
import { KeptState } from "../guests/uffd/kept-state.ts";
import type { Vmm } from "../guests/uffd/vmm.ts";
import { KeeperError, NobodyKeepsError, PROCESS_NAME } from "../keeper/keeper.ts";
import type { Keeper, KeeperLife, Kept } from "../keeper/keeper.ts";
import { openKeeper } from "../keeper/open.ts";
import type { KeeperWord } from "../keeper/open.ts";
import { isReady } from "../keeper/readiness.ts";
import type { GuestIdentity } from "../stream/identity.ts";
import { formatDuration } from "../util/duration.ts";
import { errorChain } from "../util/errors.ts";
import { log } from "../util/log.ts";
import type { Output } from "./common.ts";

const USERFAULT_NAME = "userfault";
const STATE_NAME = "state";
const KEPT_COUNT = 3;

/** Between two looks at a keeper that is not there yet. */
const LOOK_PAUSE_MS = 100;

/**
 * Whether the keeper could keep a VMM that is to come; one that is just being started is waited for.
 * @throws KeeperError.
 */
export async function checkKeeper(word: KeeperWord, patienceMs: number): Promise<void> {
  const keeper = openKeeper(word);
  const deadline = performance.now() + patienceMs;
  for (let tries = 0; ; tries++) {
    try {
      await keeper.check(KEPT_COUNT);
      return;
    } catch (error) {
      if (!(error instanceof NobodyKeepsError) || performance.now() >= deadline) throw error;
    }
    if (tries === 0) log.info(`Waiting for ${keeper.text}, for ${formatDuration(patienceMs)}`);
    await Bun.sleep(LOOK_PAUSE_MS);
  }
}

export class KeptVmm {
  readonly state: KeptState;
  readonly #keeper: Keeper;
  readonly #kept: readonly Kept[];
  #life: KeeperLife;

  private constructor(
    keeper: Keeper,
    kept: readonly Kept[],
    { state, life }: { state: KeptState; life: KeeperLife },
  ) {
    this.#keeper = keeper;
    this.#kept = kept;
    this.#life = life;
    this.state = state;
  }

  get #names(): string[] {
    return this.#kept.map(({ name }) => name);
  }

  /** Has a VMM kept that has handed its memory over. @throws KeeperError. */
  static async keep(word: KeeperWord, { handover, pid, processFd }: Vmm): Promise<KeptVmm> {
    const keeper = openKeeper(word);
    const state = KeptState.begin(pid, handover.regions);
    await state.claim();
    const kept: Kept[] = [
      { name: USERFAULT_NAME, fd: handover.userfaultFd },
      { name: STATE_NAME, fd: state.fd },
      ...(processFd < 0 ? [] : [{ name: PROCESS_NAME, fd: processFd }]),
    ];
    const life = await keeper.keep(kept);
    log.info(`The VMM's userfaultfd is kept by ${keeper.text}`);
    return new KeptVmm(keeper, kept, { state, life });
  }

  /**
   * Takes a VMM over from a process that was killed; `identity` is of the guest whose memory it gets,
   * if that is known.
   * @throws KeeperError; PostcopyError BAD_KEPT_STATE, STILL_FILLED, OTHER_GUEST.
   */
  static async takeBack(
    word: KeeperWord,
    identity: GuestIdentity | undefined,
  ): Promise<{ vmm: Vmm; kept: KeptVmm }> {
    const keeper = openKeeper(word);
    const { kept: back, life } = await keeper.takeBack();
    const taken = new Map(back.map(({ name, fd }) => [name, fd]));
    const [userfaultFd, stateFd] = [taken.get(USERFAULT_NAME), taken.get(STATE_NAME)];
    if (userfaultFd === undefined || stateFd === undefined) {
      back.forEach(({ fd }) => closeDescriptor(fd));
      throw new KeeperError("NOTHING_KEPT", `What ${keeper.text} has is no VMM's`);
    }
    const state = new KeptState(stateFd);
    await state.claim();
    // The VMM has the same opening of it, and may have had it block again.
    setNonBlocking(userfaultFd, true);
    if (identity !== undefined) state.requireGuest(identity);
    const { pid, regions } = state;
    const vmm = { handover: { regions, userfaultFd }, pid, connection: -1 };
    return {
      vmm: { ...vmm, processFd: taken.get(PROCESS_NAME) ?? -1 },
      kept: new KeptVmm(keeper, back, { state, life }),
    };
  }

  /** Whether the keeper has it still. A holder has it for as long as it lives, also where it stands still. */
  get isHeld(): boolean {
    if (typeof this.#life !== "object") return this.#life === "outlives";
    return !isReady(this.#life.processFd, POLL.POLLIN);
  }

  /** Who keeps it, for people. */
  get keeperText(): string {
    return this.#keeper.text;
  }

  /** The keeper's process (pidfd), where what is kept is lost with it; else undefined. */
  get keeperProcessFd(): number | undefined {
    return typeof this.#life === "object" ? this.#life.processFd : undefined;
  }

  /**
   * Has another one keep it, in the place of one that has ended; given up when `signal` is aborted.
   * @throws KeeperError.
   */
  async keepAgain(signal: AbortSignal): Promise<void> {
    const life = await this.#keeper.keep(this.#kept, signal);
    this.close();
    this.#life = life;
  }

  /** Gives back the descriptor of the keeper's process. */
  close(): void {
    if (typeof this.#life === "object") closeDescriptor(this.#life.processFd);
    this.#life = "unseen";
  }

  /** The VMM has ended; so has a holder, or does it just now. */
  async forget(): Promise<void> {
    await this.#tellOver((why) => log.verbose(why));
  }

  /** Nobody needs it any more. That it stays kept is no failure: it is the VMM's as well. */
  async release(output: Output): Promise<void> {
    const what = "Whoever keeps the VMM's userfaultfd could not be told that it is over";
    await this.#tellOver((why) => output.warn("KEPT_ON", `${what}: ${why}`));
  }

  async #tellOver(inVain: (why: string) => void): Promise<void> {
    try {
      await this.#keeper.release(this.#names);
    } catch (error) {
      if (!(error instanceof KeeperError)) throw error;
      inVain(errorChain(error));
    }
  }
}
