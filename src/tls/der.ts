/** DER, as far as a certificate is written with it (X.690). Nothing here reads any. */

const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectIdentifier: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** Lengths below this are one byte; longer ones are a count of bytes, and those. */
const LONG_LENGTH = 0x80;
/** The first year that a UTCTime, of two digits, does not mean. */
const GENERALIZED_TIME_YEAR = 2050;

function encode(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const content = Buffer.concat(parts);
  return Buffer.concat([Uint8Array.of(tag), encodeLength(content.length), content]);
}

function encodeLength(length: number): Uint8Array {
  if (length < LONG_LENGTH) return Uint8Array.of(length);
  const bytes = bigEndian(length, 0x100);
  return Uint8Array.of(LONG_LENGTH | bytes.length, ...bytes);
}

/** The digits of a number in a base, most significant first; at least one. */
function bigEndian(value: number, base: number): number[] {
  const digits = [value % base];
  for (let rest = Math.floor(value / base); rest > 0; rest = Math.floor(rest / base)) {
    digits.unshift(rest % base);
  }
  return digits;
}

export function sequence(...parts: readonly Uint8Array[]): Uint8Array {
  return encode(TAG.sequence, ...parts);
}

export function set(...parts: readonly Uint8Array[]): Uint8Array {
  return encode(TAG.set, ...parts);
}

/** Only true is ever written: false is every default that is left out. */
export function booleanTrue(): Uint8Array {
  return encode(TAG.boolean, Uint8Array.of(0xff));
}

/** A number that is not negative, from its bytes, most significant first. */
export function integer(...bytes: readonly number[]): Uint8Array {
  const first = bytes.findIndex((byte) => byte !== 0);
  const digits = first < 0 ? [0] : bytes.slice(first);
  // The first bit is the sign.
  return encode(TAG.integer, Uint8Array.of(...((digits[0] ?? 0) >= 0x80 ? [0] : []), ...digits));
}

/** From its dotted form, such as 2.5.29.19. */
export function objectIdentifier(dotted: string): Uint8Array {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes = [40 * first + second, ...rest].flatMap((arc) =>
    bigEndian(arc, 0x80).map((digit, i, all) => (i < all.length - 1 ? digit | 0x80 : digit)),
  );
  return encode(TAG.objectIdentifier, Uint8Array.of(...bytes));
}

/** Whole bytes as a bit string. */
export function bitString(bytes: Uint8Array): Uint8Array {
  return encode(TAG.bitString, Uint8Array.of(0), bytes);
}

/** Flags as a bit string: bit 0 is the first; zeros at the end are not written. All below 8. */
export function bitFlags(...bits: readonly number[]): Uint8Array {
  const byte = bits.reduce((sum, bit) => sum | (0x80 >> bit), 0);
  return encode(TAG.bitString, Uint8Array.of(7 - Math.max(...bits), byte));
}

export function octetString(bytes: Uint8Array): Uint8Array {
  return encode(TAG.octetString, bytes);
}

export function utf8String(text: string): Uint8Array {
  return encode(TAG.utf8String, Buffer.from(text));
}

/** To the second, as certificates want it: of two digits a year until 2049 (RFC 5280, 4.1.2.5). */
export function time(date: Date): Uint8Array {
  const digits = date.toISOString().replaceAll(/\.\d+|\D/g, "");
  const short = date.getUTCFullYear() < GENERALIZED_TIME_YEAR;
  const tag = short ? TAG.utcTime : TAG.generalizedTime;
  return encode(tag, Buffer.from(`${short ? digits.slice(2) : digits}Z`));
}

/** [number] EXPLICIT: around a whole element. */
export function explicit(number: number, element: Uint8Array): Uint8Array {
  return encode(0xa0 | number, element);
}

/** [number] IMPLICIT, of something that is not made of elements. */
export function implicit(number: number, content: Uint8Array): Uint8Array {
  return encode(0x80 | number, content);
}
