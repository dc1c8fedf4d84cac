/**
 * Firmware of our own for a QEMU whose streams are to be small: it copies a boot sector to where a
 * BIOS would, and jumps there. It starts at once, and brings no code but ours into the stream.
 */

/** The least that `-bios` takes. */
const FIRMWARE_BYTES = 64 * 1024;
/** Where the boot sector lies in it. */
const SECTOR_AT = 0x100;
/** Where a processor begins after a reset: 16 bytes below the end. */
const RESET_AT = FIRMWARE_BYTES - 16;

/** Code at its first byte, which a PC has at F000:0000. */
const START = [
  ...[0xfa], //                         cli
  ...[0xfc], //                         cld
  ...[0x8c, 0xc8], //                   mov  ax, cs
  ...[0x8e, 0xd8], //                   mov  ds, ax
  ...[0x31, 0xc0], //                   xor  ax, ax
  ...[0x8e, 0xc0], //                   mov  es, ax
  ...[0xbe, 0x00, 0x01], //             mov  si, SECTOR_AT
  ...[0xbf, 0x00, 0x7c], //             mov  di, 0x7c00
  ...[0xb9, 0x00, 0x02], //             mov  cx, 512
  ...[0xf3, 0xa4], //                   rep  movsb
  ...[0xea, 0x00, 0x7c, 0x00, 0x00], // jmp  0x0000:0x7c00
];
const RESET = [0xea, 0x00, 0x00, 0x00, 0xf0]; // jmp 0xf000:0x0000

/** The image for `-bios`. */
export function buildFirmware(bootSector: Uint8Array): Uint8Array {
  const image = new Uint8Array(FIRMWARE_BYTES);
  image.set(START);
  image.set(bootSector, SECTOR_AT);
  image.set(RESET, RESET_AT);
  return image;
}
