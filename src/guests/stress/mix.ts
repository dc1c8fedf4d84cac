/** Mixing of 32-bit numbers, for page contents and permutations. */

/** A bijection of 32 bits in which every bit of the result depends on every bit of the value. */
export function mix32(value: number): number {
  // The finaliser of MurmurHash3 (Austin Appleby, public domain).
  let bits = Math.imul(value ^ (value >>> 16), 0x85eb_ca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2_ae35);
  return bits ^ (bits >>> 16);
}
