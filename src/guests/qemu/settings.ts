/** Capabilities and parameters that a QEMU is given for one migration, and that it gets back after. */
import type { QmpClient } from "../../qmp/client.ts";
import { capabilitiesSchema, parametersSchema } from "../../qmp/messages.ts";
import { log } from "../../util/log.ts";
import { switchCapabilities } from "./migration.ts";

type Capabilities = Readonly<Record<string, boolean>>;
/** By QEMU's names: bytes a second, and milliseconds. */
type Parameters = Readonly<
  Partial<Record<"max-bandwidth" | "max-postcopy-bandwidth" | "downtime-limit", number>>
>;

/** What one migration needs. */
export interface WantedSettings {
  /** Capabilities that must be there. */
  needed: Capabilities;
  /** Capabilities that are left as they are where this QEMU has none of that name. */
  wished: Capabilities;
  parameters: Parameters;
}

export class ChangedSettings {
  readonly #qmp: QmpClient;
  readonly #capabilities: Capabilities;
  readonly #parameters: Parameters;

  private constructor(qmp: QmpClient, capabilities: Capabilities, parameters: Parameters) {
    this.#qmp = qmp;
    this.#capabilities = capabilities;
    this.#parameters = parameters;
  }

  /** Changes what is wanted. @throws PostcopyError NO_CAPABILITY; QmpError with QEMU's words. */
  static async change(qmp: QmpClient, wanted: WantedSettings): Promise<ChangedSettings> {
    const names = new Set(Object.keys({ ...wanted.needed, ...wanted.wished }));
    const known = await qmp.execute("query-migrate-capabilities", {}, capabilitiesSchema);
    const before = known
      .filter(({ capability }) => names.has(capability))
      .map(({ capability, state }): [string, boolean] => [capability, state]);
    const all = await qmp.execute("query-migrate-parameters", {}, parametersSchema);
    const parameters = Object.entries(all).filter(([name]) => name in wanted.parameters);
    await switchCapabilities(qmp, wanted.needed, wanted.wished);
    const changed = new ChangedSettings(
      qmp,
      Object.fromEntries(before),
      Object.fromEntries(parameters),
    );
    try {
      await qmp.run("migrate-set-parameters", wanted.parameters);
      return changed;
    } catch (error) {
      // One of them is out of QEMU's bounds: it has taken none, but the capabilities.
      await changed.putBack();
      throw error;
    }
  }

  /** Capabilities that were set: those of the wanted ones that this QEMU has. */
  get names(): ReadonlySet<string> {
    return new Set(Object.keys(this.#capabilities));
  }

  /** Puts back what was changed, where QEMU is there and lets us. */
  async putBack(): Promise<void> {
    try {
      await switchCapabilities(this.#qmp, {}, this.#capabilities);
      await this.#qmp.run("migrate-set-parameters", this.#parameters);
    } catch (error) {
      log.debug(`QEMU's migration settings stay as they are: ${String(error)}`);
    }
  }
}
