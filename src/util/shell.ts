/** Words as a shell takes them, for a command line that is shown to be copied. */

/** A word that means the same to every shell as it stands. */
const PLAIN = /^[\w@%+=:,./-]+$/;

/** One line for the shell that gives just these words. */
export function shellLine(words: readonly string[]): string {
  return words
    .map((word) => (PLAIN.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
    .join(" ");
}
