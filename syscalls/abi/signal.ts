/** signal.h: pidfd_send_signal(2). */
import type { AbiTable } from "./table.ts";

export const SIGNAL = { SIGKILL: 9 } as const;

export const ABI = { header: "signal.h", constants: SIGNAL, structs: {} } satisfies AbiTable;
