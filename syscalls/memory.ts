/** Memory: mmap(2), munmap(2), madvise(2), mlock(2). Addresses are numbers. */
import { ERRNO } from "./abi/errno.ts";
import { MMAN } from "./abi/mman.ts";
import { check } from "./error.ts";
import { bufferAt, NR, syscall, unmapStub, VIEW_BYTES_MAX } from "./raw.ts";

/** The kernel's base page size; both supported architectures are run with 4 KiB here. */
export const BASE_PAGE_BYTES = 4096;

/** A mapping that is unmapped when disposed of (or never, for what lives as long as the process). */
export class Mapping {
  readonly address: number;
  readonly length: number;
  #mapped = true;

  constructor(address: number, length: number) {
    this.address = address;
    this.length = length;
  }

  [Symbol.dispose](): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    check("munmap", syscall(NR.munmap, this.address, this.length), `${this.length} bytes`);
  }
}

/** What kind of anonymous memory to map. */
export interface AnonymousOptions {
  /** Page size in bytes: 4096, or a hugetlbfs size (taken from the host's pool). */
  pageSize?: number;
}

/**
 * Private anonymous memory, zero, not yet populated. Transparent huge pages are switched off for
 * it: dirty tracking and page placing both work page by page.
 * @throws SyscallError ENOMEM when the address space or the huge page pool is exhausted.
 */
export function mapAnonymous(length: number, options: AnonymousOptions = {}): Mapping {
  const pageSize = options.pageSize ?? BASE_PAGE_BYTES;
  let flags: number = MMAN.MAP_PRIVATE | MMAN.MAP_ANONYMOUS;
  if (pageSize === BASE_PAGE_BYTES) flags |= MMAN.MAP_NORESERVE;
  else flags |= MMAN.MAP_HUGETLB | (Math.log2(pageSize) << MMAN.MAP_HUGE_SHIFT);
  const protection = MMAN.PROT_READ | MMAN.PROT_WRITE;
  const address = check(
    "mmap",
    syscall(NR.mmap, 0, length, protection, flags, -1, 0),
    `${length} bytes of anonymous memory, page size ${pageSize}`,
  );
  if (pageSize === BASE_PAGE_BYTES) forbidHugePages(address, length);
  return new Mapping(address, length);
}

/** A kernel that was built without transparent huge pages answers EINVAL: it has none to forbid. */
function forbidHugePages(address: number, length: number): void {
  const result = syscall(NR.madvise, address, length, MMAN.MADV_NOHUGEPAGE);
  if (result !== -ERRNO.EINVAL) check("madvise", result, `${length} bytes, MADV_NOHUGEPAGE`);
}

/** madvise(2) with an advice of abi/mman.ts. */
export function madvise(address: number, length: number, advice: number): void {
  check("madvise", syscall(NR.madvise, address, length, advice), `${length} bytes, ${advice}`);
}

/**
 * Drops the pages of private anonymous memory: they read as zeros afterwards. Memory that is locked
 * has an advice of its own for that (Linux 5.18).
 */
export function discardPages(address: number, length: number): void {
  const result = syscall(NR.madvise, address, length, MMAN.MADV_DONTNEED);
  if (result === -ERRNO.EINVAL) madvise(address, length, MMAN.MADV_DONTNEED_LOCKED);
  else check("madvise", result, `${length} bytes, MADV_DONTNEED`);
}

/** Locks a range into memory. @throws SyscallError ENOMEM or EPERM at RLIMIT_MEMLOCK. */
export function mlock(address: number, length: number): void {
  check("mlock", syscall(NR.mlock, address, length), `${length} bytes`);
}

/** Undoes mlock for a range. */
export function munlock(address: number, length: number): void {
  check("munlock", syscall(NR.munlock, address, length), `${length} bytes`);
}

/**
 * Locks all memory of the process, what is mapped and what will be, each page once it is touched
 * (MCL_ONFAULT, Linux 4.4): nothing is populated by it. @throws SyscallError ENOMEM, EPERM.
 */
export function mlockall(): void {
  const flags = MMAN.MCL_CURRENT | MMAN.MCL_FUTURE | MMAN.MCL_ONFAULT;
  check("mlockall", syscall(NR.mlockall, flags), "MCL_CURRENT|MCL_FUTURE|MCL_ONFAULT");
}

/** Undoes mlockall and every mlock of the process. */
export function munlockall(): void {
  check("munlockall", syscall(NR.munlockall));
}

/** Longest ArrayBuffer that `viewMemory` makes; larger memory is seen through several. */
export const WINDOW_BYTES_MAX = VIEW_BYTES_MAX;

/** A window on mapped memory, without a copy; the caller keeps the mapping alive. */
export function viewMemory(address: number, length: number): ArrayBuffer {
  return bufferAt(address, length);
}

/** Memory with a fixed address that the kernel may read and write: a buffer, a struct, an iovec. */
export interface Scratch {
  readonly address: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

/** What this thread has mapped as scratch memory. */
const scratches: Mapping[] = [];

/**
 * Maps scratch memory that lives as long as its thread. Typed arrays of up to 1000 bytes move in
 * the engine's heap, so what the kernel gets a pointer to is never one of those.
 */
export function mapScratch(length: number): Scratch {
  const rounded = Math.ceil(length / BASE_PAGE_BYTES) * BASE_PAGE_BYTES;
  const mapping = mapAnonymous(rounded);
  scratches.push(mapping);
  const buffer = bufferAt(mapping.address, rounded);
  return { address: mapping.address, bytes: new Uint8Array(buffer), view: new DataView(buffer) };
}

/**
 * Gives back all memory that the calling thread has mapped for itself, at its end: whoever made
 * scratch memory here, or was handed it by this thread, uses it no more. A thread that is only
 * terminated would leave it mapped for as long as the process lives.
 */
export function unmapThreadMemory(): void {
  for (const mapping of scratches.splice(0)) mapping[Symbol.dispose]();
  unmapStub();
}

/** Scratch memory that another thread mapped and handed over by its address. */
export function scratchAt(address: number, length: number): Scratch {
  const buffer = bufferAt(address, length);
  return { address, bytes: new Uint8Array(buffer), view: new DataView(buffer) };
}

const TWO_32 = 0x1_0000_0000;

/** Stores a safe integer as a little-endian u64: two u32 stores, no BigInt. */
export function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / TWO_32), true);
}

/** Reads a little-endian u64 below 2^53. */
export function getU64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * TWO_32 + view.getUint32(at, true);
}

/** Reads a little-endian i64 of small magnitude (a byte count or a negative errno). */
export function getI64(view: DataView, at: number): number {
  return view.getInt32(at + 4, true) * TWO_32 + view.getUint32(at, true);
}
