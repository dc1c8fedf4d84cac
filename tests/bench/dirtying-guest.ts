/**
 * A boot-sector guest that dirties its memory as our stress guest does: at a rate, at random places,
 * most of it in a hot eighth that is scattered over all of it. It first fills all with numbers that
 * look random, and then prints "AB". Its clock is the timer of ACPI, which ticks alike everywhere.
 */
import { assembleBootSector, fillOnce, GUEST_PAGE_BYTES, u32 } from "../helpers/boot-sector.ts";
import type { BootSectorRange } from "../helpers/boot-sector.ts";

/** Ticks a second of the power-management timer, and its port as the BIOS of a `pc` puts it. */
const TIMER_HZ = 3_579_545;
const TIMER_PORT = 0x608;
/** Of the pages, the hot ones are one in 2^3; of the accesses, the others' are one in 2^3. */
const HOT_SHIFT = 3;
/** Accesses between two looks at the clock; a power of two above 2^HOT_SHIFT. */
const BATCH = 64;
/** Keeps the emulated port from being asked all the time, which would hold up QEMU's main loop. */
const PAUSE_LOOPS = 2000;

/** Goes through all numbers below a power of two before one comes again: `register` is 6 (esi) or 3. */
function nextNumber(register: 3 | 6, count: number): number[] {
  const twice = (register << 3) | register;
  return [
    ...[0x69, 0xc0 | twice, ...u32(1_664_525)], //           imul reg, reg, 1664525
    ...[0x81, 0xc0 | register, ...u32(1_013_904_223)], //    add  reg, 1013904223
    ...[0x81, 0xe0 | register, ...u32(count - 1)], //        and  reg, count - 1
    ...[0x89, 0xc7 | (register << 3)], //                    mov  edi, reg
  ];
}

/** Writes to `bytesPerSecond` worth of pages of the range, whose pages are a power of two, for ever. */
function dirtyForEver(range: BootSectorRange, bytesPerSecond: number): number[] {
  const pages = (range.endAddress - range.startAddress) / GUEST_PAGE_BYTES;
  if (!Number.isInteger(Math.log2(pages))) throw new RangeError(`${pages} pages`);
  const ticks = Math.round((BATCH * GUEST_PAGE_BYTES * TIMER_HZ) / bytesPerSecond);
  const hot = [
    ...nextNumber(6, pages >> HOT_SHIFT),
    ...[0xc1, 0xe7, 12 + HOT_SHIFT], //                      shl  edi, 15
  ];
  const cold = [
    ...nextNumber(3, pages),
    ...[0xc1, 0xe7, 12], //                                  shl  edi, 12
  ];
  const access = [
    ...[0xf6, 0xc1, (1 << HOT_SHIFT) - 1], //        access: test cl, 7
    ...[0x74, hot.length + 2], //                            jz   cold
    ...hot,
    ...[0xeb, cold.length], //                               jmp  touch
    ...cold, //                                        cold:
    ...[0xfe, 0x87, ...u32(range.startAddress)], //   touch: inc  byte [edi + startAddress]
  ];
  const pause = [0xb9, ...u32(PAUSE_LOOPS), 0xe2, 0xfe]; //  mov  ecx, loops; loop itself
  const look = [
    ...pause, //                                       wait:
    ...[0xed], //                                            in   eax, dx
    ...[0x29, 0xe8], //                                      sub  eax, ebp
    ...[0x25, ...u32(0xff_ffff)], //                         and  eax, 0xffffff
    ...[0x3d, ...u32(ticks)], //                             cmp  eax, ticks
  ];
  const batch = [
    ...[0xb9, ...u32(BATCH)], //                      batch: mov  ecx, BATCH
    ...access,
    ...[0xe2, -(access.length + 2) & 0xff], //               loop access
    ...look,
    ...[0x72, -(look.length + 2) & 0xff], //                 jb   wait
    // A batch that was late does not delay the next one.
    ...[0x81, 0xc5, ...u32(ticks)], //                       add  ebp, ticks
  ];
  return [
    ...[0xed, 0x89, 0xc5], //                                in   eax, dx; mov ebp, eax
    ...batch,
    ...[0xeb, -(batch.length + 2) & 0xff], //                jmp  batch
  ];
}

/** Prints one letter on the first serial port. */
function print(letter: string): number[] {
  return [0x66, 0xba, 0xf8, 0x03, 0xb0, letter.charCodeAt(0), 0xee];
}

/** The guest's 512 bytes. */
export function buildDirtyingGuest(range: BootSectorRange, bytesPerSecond: number): Uint8Array {
  return assembleBootSector([
    ...fillOnce(range),
    ...print("A"),
    ...print("B"),
    ...[0x31, 0xf6, 0x31, 0xdb], //                          xor  esi, esi; xor ebx, ebx
    ...[0x66, 0xba, TIMER_PORT & 0xff, TIMER_PORT >> 8], //  mov  dx, TIMER_PORT
    ...dirtyForEver(range, bytesPerSecond),
  ]);
}
