/**
 * The colours of plots, by name; style.ts says what each is in light and in dark. They are taken from
 * the palette of Okabe and Ito, which people with any kind of colour blindness tell apart, and made
 * darker or lighter until each has a contrast of 3:1 and more with its background.
 */
export const COLOURS = ["blue", "vermilion", "green", "slate", "purple", "amber"] as const;
export type Colour = (typeof COLOURS)[number];

/** A colour for each of several things that have none of their own. */
export function colourOf(index: number): Colour {
  return COLOURS[index % COLOURS.length] ?? "slate";
}
