/**
 * What the runtime would take orders from beside the command line. The executable has the rest of it
 * turned off when it is built (scripts/build.ts); these are looked at before anything else is done.
 */
import { UsageError } from "../util/errors.ts";

/** Options of the runtime and its engine, and a debugger that others could connect to. */
const ORDERS = /^BUN_(OPTIONS|INSPECT(_.*)?|JSC_.*)$/;

/** Refuses to run under them. @throws UsageError ENVIRONMENT, naming the variable. */
export function checkEnvironment(environment: Readonly<Record<string, string | undefined>>): void {
  const found = Object.keys(environment).find((name) => ORDERS.test(name));
  if (found === undefined) return;
  throw new UsageError(
    "ENVIRONMENT",
    `The variable ${found} is set, which would change this program`,
    {
      hint: `unset it: env -u ${found} postcopy ...`,
    },
  );
}
