/** The system call behind an error of node:fs. */
export interface FailedCall {
  call: string;
  /** As the kernel has it: positive. */
  errno: number;
}

/** What a function of node:fs failed with; undefined for anything else that was thrown. */
export function failedCallOf(thrown: unknown): FailedCall | undefined {
  if (!(thrown instanceof Error && "errno" in thrown && "syscall" in thrown)) return undefined;
  const { errno, syscall: call } = thrown;
  if (typeof errno !== "number" || typeof call !== "string") return undefined;
  return { call, errno: Math.abs(errno) };
}
