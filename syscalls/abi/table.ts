/**
 * The form in which every file of this folder states what it took from a kernel header, so that a
 * test can compile a C program against the header itself and compare each number.
 */
export interface AbiTable {
  /** The header, as it is included: "linux/userfaultfd.h". */
  header: string;
  /** Macro or enumerator name → value. */
  constants: Record<string, number>;
  /** Struct name, with the word `struct` → size in bytes and offset of each field. */
  structs: Record<string, { size: number; fields: Record<string, number> }>;
}
