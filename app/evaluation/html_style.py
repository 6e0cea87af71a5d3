"""The style sheet of ``report.html``: phone first, light and dark, no network."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #f4f6f9; --card: #ffffff; --ink: #18212d; --muted: #5d6979; --line: #dfe4ea;
  --accent: #2563c9; --second: #d9731a; --bad: #c62f2f; --bad-soft: #fdecec;
  --type-0: #3b76d6; --type-1: #d98a1f; --type-2: #2a9d72; --type-3: #a45ad1;
  --type-4: #c94f7c; --type-5: #2f9fb3; --type-6: #8a7a2c; --type-7: #6b7280;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0e131a; --card: #171e28; --ink: #e7ecf3; --muted: #97a3b3; --line: #2b3543;
    --accent: #6ea3f7; --second: #f0a259; --bad: #ff7b72; --bad-soft: #3a2023;
    --type-0: #6ea3f7; --type-1: #eab04f; --type-2: #4fc99a; --type-3: #c48bf0;
    --type-4: #f084ab; --type-5: #58c7da; --type-6: #c9b75a; --type-7: #9aa4b2;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
}
main { max-width: 72rem; margin: 0 auto; padding: 1.25rem 1rem 3rem; }
header { margin-bottom: 1.25rem; }
h1 {
  font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; letter-spacing: -.01em;
  overflow-wrap: anywhere;
}
h2 { font-size: 1.05rem; margin: 0 0 .15rem; }
p { margin: 0; }
.quiet { color: var(--muted); font-size: .875rem; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: .75rem;
  padding: 1rem; margin-bottom: 1rem; min-width: 0;
}
.grid { display: grid; gap: 0 1rem; grid-template-columns: minmax(0, 1fr); }
.tiles { display: grid; gap: .75rem; grid-template-columns: repeat(2, minmax(0, 1fr)); margin-bottom: 1rem; }
.tile {
  background: var(--card); border: 1px solid var(--line); border-radius: .75rem; padding: .75rem .9rem;
}
.tile b { display: block; font-size: 1.5rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: .8rem; }
.tile.first {
  grid-column: span 2; background: var(--accent); border-color: var(--accent); color: var(--card);
}
.tile.first b { font-size: 2.25rem; }
.tile.first span { color: inherit; }
.card svg { display: block; width: 100%; height: auto; max-width: 36rem; margin: .6rem auto 0; }
.card svg * { stroke-linejoin: round; }
.scroll { overflow-x: auto; margin-top: .6rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .82rem; }
th, td {
  text-align: right; padding: .3rem .15rem .3rem .4rem; border-bottom: 1px solid var(--line);
  white-space: nowrap;
}
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { color: var(--muted); font-weight: 600; font-size: .75rem; }
.hardware td { text-align: left; white-space: normal; }
tr.average td { font-weight: 600; }
tr.average.top td { border-top: 2px solid var(--line); }
.choices { margin: .75rem 0 .5rem; }
.choices input { position: absolute; opacity: 0; pointer-events: none; }
.choices label {
  display: inline-block; margin: 0 .3rem .4rem 0; padding: .25rem .7rem; border: 1px solid var(--line);
  border-radius: 1rem; font-size: .85rem; cursor: pointer;
}
.choices input:checked + label { background: var(--ink); border-color: var(--ink); color: var(--card); }
.choices input:focus-visible + label { outline: 2px solid var(--accent); outline-offset: 2px; }
.example { border-top: 1px solid var(--line); padding: .75rem 0; }
.example .where { display: flex; flex-wrap: wrap; gap: .35rem .6rem; align-items: baseline; }
.kind {
  background: var(--bad-soft); color: var(--bad); border-radius: .35rem; padding: .05rem .45rem;
  font-size: .8rem;
}
.line { margin-top: .35rem; }
.line > .quiet { display: block; padding-top: .1rem; }
.words { overflow-wrap: anywhere; line-height: 1.9; }
mark {
  color: inherit; padding: .1rem .3rem; border-radius: .3rem; -webkit-box-decoration-break: clone;
  box-decoration-break: clone; background: color-mix(in srgb, var(--type) 24%, transparent);
}
mark small {
  color: color-mix(in srgb, var(--type) 65%, var(--ink)); font-weight: 700; font-size: .68rem;
  margin-inline-start: .3rem;
}
mark.wrong { outline: 2px solid var(--bad); outline-offset: -1px; }
details { border-top: 1px solid var(--line); padding: .6rem 0; }
summary { cursor: pointer; font-weight: 600; }
pre {
  overflow-x: auto; background: var(--page); border-radius: .5rem; padding: .75rem; margin: .6rem 0 0;
  font: .8rem/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
}
@media (min-width: 46rem) {
  main { padding: 2rem 1.5rem 4rem; }
  h1 { font-size: 1.9rem; }
  .grid { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .grid > .card:last-child:nth-child(odd) { grid-column: 1 / -1; }
  .tiles { display: flex; flex-wrap: wrap; }
  .tile { flex: 1 1 7rem; display: flex; flex-direction: column; justify-content: flex-end; }
  .tile.first { flex: 2 1 12rem; }
  .card { padding: 1.25rem; }
  table { font-size: .9rem; }
  th { font-size: .8rem; }
  .line { display: grid; grid-template-columns: 5.2rem minmax(0, 1fr); }
}
@media print { .choices { display: none; } .card { break-inside: avoid-page; } body { background: none; } }
"""
