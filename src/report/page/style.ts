/** The style of a page: light and dark, phone and desk, screen and paper. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --paper: #f6f7f9; --card: #fff; --ink: #1b2430; --quiet: #586474; --rule: #dfe3e9; --grid: #e6e9ee;
  --blue: #0069b4; --vermilion: #d04a02; --green: #00835f; --slate: #7a8699; --purple: #a3478f;
  --amber: #a86a00; --good: #00734f; --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #10151c; --card: #18202a; --ink: #e6ebf2; --quiet: #9ba8b8; --rule: #2b3644;
    --grid: #27313d; --blue: #58b0f5; --vermilion: #ff8a4c; --green: #3ccb9b; --slate: #8e9bb0;
    --purple: #de8fca; --amber: #e8b04a; --good: #4fd6a5; --bad: #ff8a80;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 76rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  overflow-wrap: anywhere; font-variant-numeric: tabular-nums;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 0.75rem; }
h3 { font-size: 1rem; margin: 0; }
p { margin: 0.25rem 0 0.5rem; }
.subtitle, figcaption p, footer, caption { color: var(--quiet); }
figcaption p, .empty p, caption { font-size: 0.875rem; }
footer { margin-top: 2.5rem; font-size: 0.8125rem; }
a { color: var(--blue); }
.good { color: var(--good); } .bad { color: var(--bad); }

.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 0.75rem; margin: 1.25rem 0; }
.tiles > div, .plot, .card { background: var(--card); border: 1px solid var(--rule); border-radius: 0.6rem; }
.tiles > div { padding: 0.7rem 0.9rem; }
.tiles dt { font-size: 0.8125rem; color: var(--quiet); }
.tiles dd { margin: 0; font-size: 1.35rem; font-weight: 650; line-height: 1.35; }
.tiles small { display: block; font-size: 0.8125rem; font-weight: 400; line-height: 1.35; color: var(--quiet); }

.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem; align-items: start; margin-bottom: 1rem; }
.plot { margin: 0 0 1rem; padding: 0.9rem 1rem 0.7rem; min-width: 0; }
.plots > .plot { margin: 0; height: 100%; }
.empty { border-style: dashed; }
.cards { columns: 30rem auto; column-gap: 1rem; }
.card { break-inside: avoid; padding: 0.3rem 1rem 0.6rem; margin: 0 0 1rem; }
.card caption { font-weight: 600; color: var(--ink); font-size: 0.9375rem; }
.card table { margin: 0; background: none; }
.card tr:last-child > * { border-bottom: 0; }
.chart { display: grid; grid-template-columns: max-content minmax(0, 1fr); column-gap: 0.5rem; margin-top: 0.5rem; }
.chart > svg { grid-column: 2; width: 100%; height: 15rem; display: block; overflow: visible; }
.heat-map .chart > svg { height: 22rem; }
.y-title, .x-title, .y-axis, .x-axis { font-size: 12px; line-height: 1.2; color: var(--quiet); }
.y-title { grid-column: 1 / 3; margin-bottom: 0.75rem; }
.x-title { grid-column: 2; text-align: right; margin-top: 0.15rem; }
.y-axis { grid-column: 1; position: relative; white-space: nowrap; }
.y-axis i { visibility: hidden; }
.y-axis span { position: absolute; right: 0; transform: translateY(50%); }
.x-axis { grid-column: 2; position: relative; height: 1.1rem; margin-top: 0.3rem; white-space: nowrap; }
.x-axis span { position: absolute; transform: translateX(-50%); }
.x-axis .begin { transform: none; }
.x-axis .end { transform: translateX(-100%); }
.legend { list-style: none; margin: 0.4rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0.2rem 1rem; font-size: 0.8125rem; }
.legend li { display: flex; align-items: center; gap: 0.4rem; }
.key { width: 0.9rem; height: 0.6rem; border-radius: 2px; background: var(--c); flex: none; }
.key.dashed { height: 0; border-radius: 0; background: none; border-top: 2px dashed var(--c); }

.blue { --c: var(--blue); } .vermilion { --c: var(--vermilion); } .green { --c: var(--green); }
.slate { --c: var(--slate); } .purple { --c: var(--purple); } .amber { --c: var(--amber); }
svg path { fill: none; vector-effect: non-scaling-stroke; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .fill, svg .fill rect { fill: var(--c); }
svg .line { stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
svg .dashed { stroke-dasharray: 6 4; }
svg .dot { stroke: var(--c); stroke-width: 9; stroke-linecap: round; }
svg .spread, svg .range { stroke: var(--c); stroke-width: 2; }
svg .range { stroke-width: 5; opacity: 0.45; stroke-linecap: round; }
svg .moment { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 2 3; }
svg .heat { fill: var(--c); shape-rendering: crispEdges; }
svg .level1 { opacity: 0.4; } svg .level2 { opacity: 0.6; } svg .level3 { opacity: 0.8; }
svg .hover rect { fill: transparent; }
svg .hover rect:hover { fill: var(--ink); opacity: 0.08; }

.rows { display: grid; grid-template-columns: minmax(7rem, max-content) minmax(0, 1fr) max-content; grid-auto-flow: dense; gap: 0.15rem 0.9rem; align-items: center; margin-top: 0.5rem; font-size: 0.875rem; }
.rows .name { grid-column: 1; } .rows svg { grid-column: 2; grid-row: auto; width: 100%; height: 1.9rem; }
.rows .value { grid-column: 3; text-align: right; }
.rows small { color: var(--quiet); font-size: 12px; display: block; line-height: 1.2; }
.rows .axis-name { grid-column: 1; }
.rows .x-axis .odd { display: none; }

.scroll { overflow-x: auto; margin: 0.5rem 0 1rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.875rem; background: var(--card); }
caption { text-align: left; padding: 0.4rem 0; }
th, td { padding: 0.35rem 0.7rem; border-bottom: 1px solid var(--rule); text-align: right; font-weight: 400; vertical-align: top; }
thead th { color: var(--quiet); font-size: 0.8125rem; border-bottom-width: 2px; }
th[scope="row"], .text { text-align: left; }
.scroll th, .scroll td { white-space: nowrap; }
.facts { margin: 0 0 1rem; }
.facts th { width: 55%; color: var(--quiet); }
details { margin: 0.5rem 0; }
summary { cursor: pointer; padding: 0.3rem 0; }
pre { margin: 0.5rem 0; padding: 0.75rem; background: var(--card); border: 1px solid var(--rule); border-radius: 0.6rem; font-size: 12px; white-space: pre-wrap; }

@media (max-width: 40rem) {
  body { padding: 1rem 0.75rem 2rem; }
  .plot { padding: 0.75rem; }
  .chart > svg { height: 12.5rem; }
  .heat-map .chart > svg { height: 16rem; }
  .x-axis .odd { display: none; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0.5rem; }
  .tiles dd { font-size: 1.15rem; }
  .rows { grid-template-columns: minmax(0, 1fr) max-content; }
  .rows svg, .rows .x-axis { grid-column: 1 / 3; }
  .rows .value { grid-column: 2; } .rows .axis-name { display: none; }
  .rows small { display: inline; }
}
@media print {
  :root {
    --paper: #fff; --card: #fff; --ink: #000; --quiet: #444; --rule: #bbb; --grid: #ddd;
    --blue: #0069b4; --vermilion: #d04a02; --green: #00835f; --slate: #7a8699; --purple: #a3478f;
    --amber: #a86a00;
  }
  body { padding: 0; font-size: 11pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .plot, .tiles > div, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  details { display: none; }
}
`;
