/**
 * A guest of 512 bytes for tests with a real QEMU. It boots from a disk that holds nothing but this
 * sector, switches to 32-bit protected mode, and then for ever adds one to the first byte of every
 * page of a range of memory, upwards, and prints a letter on the first serial port after each
 * round. Its memory is therefore easy to judge (`memory-pattern.ts`): at any instant the pages
 * below the running one are exactly one ahead of the pages above it.
 *
 * The aim is that of the guest of QEMU's own migration test; the code is our own.
 */

/** Where the BIOS puts a boot sector; also the linear address of `code[0]`. */
const LOAD_ADDRESS = 0x7c00;
const SECTOR_BYTES = 512;
const FAR_JUMP_BYTES = 5;
const SIGNATURE = [0x55, 0xaa] as const;

/** The guest steps by 4 KiB whatever the page size of the host. */
export const GUEST_PAGE_BYTES = 4096;

/** Printed once, before the first round. */
export const STARTED_LETTER = "A";
/** Printed after every whole round. */
export const ROUND_LETTER = "B";

/** The range of guest-physical memory that the guest counts in, in bytes from address 0. */
export interface BootSectorRange {
  /** First page; page-aligned, not below 1 MiB (below lie the BIOS, this code and its stack). */
  startAddress: number;
  /** One past the last page; page-aligned; the BIOS may use the last MiB of the guest's memory. */
  endAddress: number;
}

/** 1 MiB to 44 MiB: 11 008 pages. Of 64 MiB a BIOS uses the last 16, and a little below them. */
export const DEFAULT_RANGE: BootSectorRange = { startAddress: 0x10_0000, endAddress: 0x2c0_0000 };

const LOWEST_ADDRESS = 0x10_0000;
/** Segments reach 4 GiB, but a PC has no memory in the uppermost quarter of it. */
const HIGHEST_ADDRESS = 0xc000_0000;

function u16(value: number): number[] {
  return [value & 0xff, (value >>> 8) & 0xff];
}

export function u32(value: number): number[] {
  return [...u16(value & 0xffff), ...u16(value >>> 16)];
}

/**
 * The three descriptors that `lgdt` loads: the unused first one, then code and data, both flat
 * (base 0, limit 4 GiB in 4 KiB units, 32 bit, present, ring 0), and behind them the six bytes that
 * `lgdt` reads: the table's last byte and its linear address.
 */
function descriptorTable(address: number): number[] {
  const none = [0, 0, 0, 0, 0, 0, 0, 0];
  const code = [0xff, 0xff, 0, 0, 0, 0x9a, 0xcf, 0];
  const data = [0xff, 0xff, 0, 0, 0, 0x92, 0xcf, 0];
  const table = [...none, ...code, ...data];
  return [...table, ...u16(table.length - 1), ...u32(address)];
}

/** From the 16-bit mode a BIOS leaves us in to flat 32-bit segments; ends at the byte behind it. */
function enterProtectedMode(descriptorTableRegister: number): number[] {
  const sixteenBit = [
    ...[0xfa], //                                       cli
    ...[0x31, 0xc0], //                                 xor  ax, ax
    ...[0x8e, 0xd8], //                                 mov  ds, ax
    // Address line 20 on, or every second MiB would alias the one below; bit 0 would reset us.
    ...[0xe4, 0x92], //                                 in   al, 0x92
    ...[0x0c, 0x02], //                                 or   al, 2
    ...[0x24, 0xfe], //                                 and  al, 0xfe
    ...[0xe6, 0x92], //                                 out  0x92, al
    ...[0x0f, 0x01, 0x16, ...u16(descriptorTableRegister)], // lgdt [descriptorTableRegister]
    ...[0x0f, 0x20, 0xc0], //                           mov  eax, cr0
    ...[0x0c, 0x01], //                                 or   al, 1
    ...[0x0f, 0x22, 0xc0], //                           mov  cr0, eax
  ];
  const flat = LOAD_ADDRESS + sixteenBit.length + FAR_JUMP_BYTES;
  return [
    ...sixteenBit,
    ...[0xea, ...u16(flat), 0x08, 0x00], //             jmp  0x08:flat
    ...[0x66, 0xb8, 0x10, 0x00], //               flat: mov  ax, 0x10
    ...[0x8e, 0xd8], //                                 mov  ds, ax
  ];
}

/** Writes numbers that look random to the whole range, so that no page is zero or like another. */
export function fillOnce(range: BootSectorRange): number[] {
  const fill = [
    ...[0x69, 0xc0, ...u32(1_664_525)], //        fill: imul eax, eax, 1664525
    ...[0x05, ...u32(1_013_904_223)], //                add  eax, 1013904223
    ...[0x89, 0x07], //                                 mov  [edi], eax
    ...[0x83, 0xc7, 0x04], //                           add  edi, 4
    ...[0x81, 0xff, ...u32(range.endAddress)], //       cmp  edi, endAddress
    ...[0x72], //                                       jb   fill (the distance follows)
  ];
  return [
    ...[0xbf, ...u32(range.startAddress)], //           mov  edi, startAddress
    ...fill,
    ...[-(fill.length + 1) & 0xff],
  ];
}

/** The endless count. Positions are relative, so it may stand anywhere. */
function countForEver(range: BootSectorRange): number[] {
  const page = [
    ...[0xfe, 0x07], //                           page: inc  byte [edi]
    ...[0x81, 0xc7, ...u32(GUEST_PAGE_BYTES)], //       add  edi, 4096
    ...[0x81, 0xff, ...u32(range.endAddress)], //       cmp  edi, endAddress
    ...[0x72], //                                       jb   page (the distance follows)
  ];
  const round = [
    ...[0xbf, ...u32(range.startAddress)], //    round: mov  edi, startAddress
    ...page,
    ...[-(page.length + 1) & 0xff],
    ...[0xb0, ROUND_LETTER.charCodeAt(0)], //           mov  al, 'B'
    ...[0xee], //                                       out  dx, al
    ...[0xeb], //                                       jmp  round (the distance follows)
  ];
  return [
    ...[0x66, 0xba, ...u16(0x3f8)], //                  mov  dx, 0x3f8
    ...[0xb0, STARTED_LETTER.charCodeAt(0)], //         mov  al, 'A'
    ...[0xee], //                                       out  dx, al
    ...round,
    ...[-(round.length + 1) & 0xff],
  ];
}

/**
 * Adds one to the first byte of a page at random, for ever, and prints a letter after as many as the
 * range has pages. Positions are relative, so it may stand anywhere.
 */
function touchAtRandom({ startAddress, endAddress }: BootSectorRange): number[] {
  const pages = (endAddress - startAddress) / GUEST_PAGE_BYTES;
  const touch = [
    ...[0x69, 0xf6, ...u32(1_664_525)], //       touch: imul esi, esi, 1664525
    ...[0x81, 0xc6, ...u32(1_013_904_223)], //          add  esi, 1013904223
    // The upper bits are the random ones: the product's upper half is a page below `pages`.
    ...[0xb8, ...u32(pages)], //                        mov  eax, pages
    ...[0xf7, 0xe6], //                                 mul  esi
    ...[0xc1, 0xe2, 12], //                             shl  edx, 12
    ...[0xfe, 0x82, ...u32(startAddress)], //           inc  byte [edx + startAddress]
    ...[0x49], //                                       dec  ecx
    ...[0x75], //                                       jnz  touch (the distance follows)
  ];
  const round = [
    ...[0xb9, ...u32(pages)], //                 round: mov  ecx, pages
    ...touch,
    ...[-(touch.length + 1) & 0xff],
    ...[0x66, 0xba, ...u16(0x3f8)], //                  mov  dx, 0x3f8
    ...[0xb0, ROUND_LETTER.charCodeAt(0)], //           mov  al, 'B'
    ...[0xee], //                                       out  dx, al
    ...[0xeb], //                                       jmp  round (the distance follows)
  ];
  return [
    ...[0x66, 0xba, ...u16(0x3f8)], //                  mov  dx, 0x3f8
    ...[0xb0, STARTED_LETTER.charCodeAt(0)], //         mov  al, 'A'
    ...[0xee], //                                       out  dx, al
    ...round,
    ...[-(round.length + 1) & 0xff],
  ];
}

function assertRange(range: BootSectorRange): void {
  const { startAddress, endAddress } = range;
  if (startAddress % GUEST_PAGE_BYTES !== 0 || endAddress % GUEST_PAGE_BYTES !== 0) {
    throw new RangeError("the boot sector counts in whole pages");
  }
  if (startAddress < LOWEST_ADDRESS || endAddress > HIGHEST_ADDRESS || startAddress >= endAddress) {
    throw new RangeError(`the boot sector cannot count from ${startAddress} to ${endAddress}`);
  }
}

/** The 512 bytes of a boot sector that goes to 32-bit mode and then does what `code` says. */
export function assembleBootSector(code: readonly number[]): Uint8Array {
  const codeBytes = enterProtectedMode(0).length + code.length;
  const tableAddress = LOAD_ADDRESS + Math.ceil(codeBytes / 8) * 8;
  const table = descriptorTable(tableAddress);
  const registerAddress = tableAddress + table.length - 6;

  const sector = new Uint8Array(SECTOR_BYTES);
  sector.set([...enterProtectedMode(registerAddress), ...code]);
  sector.set(table, tableAddress - LOAD_ADDRESS);
  sector.set(SIGNATURE, SECTOR_BYTES - SIGNATURE.length);
  return sector;
}

/**
 * The 512 bytes of the boot sector. With `filled`, the guest first fills the whole range with
 * numbers that look random, for measurements (`checkPattern` wants a guest that does not); with
 * `random` it then touches pages at random instead of counting. A range that cannot be counted in is
 * a RangeError.
 */
export function buildBootSector(
  range: BootSectorRange = DEFAULT_RANGE,
  options: { filled?: boolean; random?: boolean } = {},
): Uint8Array {
  assertRange(range);
  return assembleBootSector([
    ...(options.filled === true ? fillOnce(range) : []),
    ...(options.random === true ? touchAtRandom(range) : countForEver(range)),
  ]);
}
