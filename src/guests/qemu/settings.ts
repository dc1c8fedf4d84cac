/** Capabilities and parameters that a QEMU is given for one migration, and that it gets back after. */
import type { QmpClient } from "../../qmp/client.ts";
import { capabilitiesSchema, parametersSchema } from "../../qmp/messages.ts";
import { log } from "../../util/log.ts";
import { switchCapabilities } from "./migration.ts";
import { addCredentials, leftByUs, NO_TLS, removeCredentials, tlsParameters } from "./tls.ts";
import type { QemuTls } from "./tls.ts";

type Capabilities = Readonly<Record<string, boolean>>;
/** By QEMU's names: bytes a second, and milliseconds. */
type Parameters = Readonly<
  Partial<Record<"max-bandwidth" | "max-postcopy-bandwidth" | "downtime-limit", number>> &
    Partial<Record<"tls-creds" | "tls-hostname", string>>
>;

/** What one migration needs. */
export interface WantedSettings {
  /** Capabilities that must be there. */
  needed: Capabilities;
  /** Capabilities that are left as they are where this QEMU has none of that name. */
  wished: Capabilities;
  parameters: Parameters;
  /** Certificates, where the migration goes over TLS. */
  tls?: QemuTls | undefined;
}

export class ChangedSettings {
  readonly #qmp: QmpClient;
  readonly #capabilities: Capabilities;
  readonly #parameters: Parameters;
  readonly #tls: QemuTls | undefined;

  private constructor(
    qmp: QmpClient,
    capabilities: Capabilities,
    parameters: Parameters,
    tls: QemuTls | undefined,
  ) {
    this.#qmp = qmp;
    this.#capabilities = capabilities;
    this.#parameters = parameters;
    this.#tls = tls;
  }

  /** Changes what is wanted. @throws PostcopyError NO_CAPABILITY; QmpError with QEMU's words. */
  static async change(qmp: QmpClient, wanted: WantedSettings): Promise<ChangedSettings> {
    const names = new Set(Object.keys({ ...wanted.needed, ...wanted.wished }));
    const known = await qmp.execute("query-migrate-capabilities", {}, capabilitiesSchema);
    const before = known
      .filter(({ capability }) => names.has(capability))
      .map(({ capability, state }): [string, boolean] => [capability, state]);
    const found = await qmp.execute("query-migrate-parameters", {}, parametersSchema);
    const { tls } = wanted;
    const isLeft = leftByUs(found);
    const all = isLeft ? { ...found, ...NO_TLS } : found;
    const wantedParameters = {
      ...wanted.parameters,
      ...(isLeft ? NO_TLS : {}),
      ...(tls === undefined ? {} : tlsParameters(tls)),
    };
    const parameters = Object.entries(all).filter(([name]) => name in wantedParameters);
    await switchCapabilities(qmp, wanted.needed, wanted.wished);
    const changed = new ChangedSettings(
      qmp,
      Object.fromEntries(before),
      Object.fromEntries(parameters),
      tls,
    );
    try {
      if (tls !== undefined) await addCredentials(qmp, tls);
      await qmp.run("migrate-set-parameters", wantedParameters);
      return changed;
    } catch (error) {
      // A certificate is none of QEMU's liking, or a parameter is out of its bounds: it has taken
      // none of them, but the capabilities.
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
    await attempt("capabilities", () => switchCapabilities(this.#qmp, {}, this.#capabilities));
    await attempt("parameters", () => this.#qmp.run("migrate-set-parameters", this.#parameters));
    if (this.#tls !== undefined) await removeCredentials(this.#qmp);
  }
}

/** That one kind of them cannot be put back does not keep the other from it. */
async function attempt(what: string, putBack: () => Promise<unknown>): Promise<void> {
  try {
    await putBack();
  } catch (error) {
    log.debug(`QEMU's migration ${what} stay as they are: ${String(error)}`);
  }
}
