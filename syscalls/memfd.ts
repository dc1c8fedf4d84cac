/** A file without a name in memory, which other processes can be given: memfd_create(2). */
import { fstatSync, ftruncateSync } from "node:fs";
import { FCNTL } from "./abi/file.ts";
import { MMAN } from "./abi/mman.ts";
import { closeDescriptor } from "./descriptor.ts";
import { check } from "./error.ts";
import { mapScratch, Mapping } from "./memory.ts";
import { NR, syscall } from "./raw.ts";

/** Nobody who has the file can take memory away from under those who map it. */
const SEALS = FCNTL.F_SEAL_SHRINK | FCNTL.F_SEAL_SEAL;

/**
 * A file of `length` zero bytes, close-on-exec, which never becomes shorter. `name` shows in /proc.
 * @throws SyscallError EMFILE, ENOMEM; what ftruncate(2) fails with.
 */
export function makeMemoryFile(name: string, length: number): number {
  const text = new TextEncoder().encode(`${name}\0`);
  const scratch = mapScratch(text.length);
  scratch.bytes.set(text);
  const flags = MMAN.MFD_CLOEXEC | MMAN.MFD_ALLOW_SEALING;
  const fd = check("memfd_create", syscall(NR.memfd_create, scratch.address, flags), name);
  try {
    ftruncateSync(fd, length);
    check("fcntl", syscall(NR.fcntl, fd, FCNTL.F_ADD_SEALS, SEALS), `fd ${fd}, F_ADD_SEALS`);
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

/** Makes a file `length` bytes long, if it is shorter; what is new is zeros. */
export function growMemoryFile(fd: number, length: number): void {
  if (fstatSync(fd).size < length) ftruncateSync(fd, length);
}

/** The length of a file that `makeMemoryFile` made, perhaps elsewhere; undefined of any other. */
export function sealedLength(fd: number): number | undefined {
  const seals = syscall(NR.fcntl, fd, FCNTL.F_GET_SEALS);
  if (seals < 0 || (seals & SEALS) !== SEALS) return undefined;
  return fstatSync(fd).size;
}

/**
 * Maps `length` bytes of a file from `offset` on, shared, readable and writable, with all of its pages
 * there at first; what is to stay there takes mlock(2). @throws SyscallError ENOMEM.
 */
export function mapFile(fd: number, length: number, offset = 0): Mapping {
  const protection = MMAN.PROT_READ | MMAN.PROT_WRITE;
  const flags = MMAN.MAP_SHARED | MMAN.MAP_POPULATE;
  const address = syscall(NR.mmap, 0, length, protection, flags, fd, offset);
  return new Mapping(check("mmap", address, `${length} bytes of fd ${fd}`), length);
}
