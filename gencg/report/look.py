"""The look of the page, light and dark, and its frame."""

STYLE = """
:root { color-scheme: light dark; --bg: #ffffff; --card: #f6f7f9; --text: #1b1f24;
  --soft: #5b6470; --line: #d9dde3; --good: #00734f; --fair: #9a5b00; --poor: #b3261e;
  --open: #4a5a9a; --link: #1f5f8b; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171b; --card: #1d2127; --text: #e8eaed;
  --soft: #a3abb6; --line: #343a43; --good: #4cc79b; --fair: #f0b04f; --poor: #ff8a80;
  --open: #a9b8ff; --link: #7ab8e0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1060px; padding: 2rem 1.25rem 4rem; background: var(--bg);
  color: var(--text); font: 16px/1.55 system-ui, "DejaVu Sans", sans-serif; }
a { color: var(--link); }
h1 { font-size: 1.9rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
header p { color: var(--soft); margin: .2rem 0 1.2rem; }
.overall { font-size: 1.15rem; font-weight: 600; padding: .8rem 1rem; border-left: 5px solid;
  background: var(--card); border-radius: 4px; }
.good { color: var(--good); } .fair { color: var(--fair); }
.poor { color: var(--poor); } .open { color: var(--open); }
.verdicts { list-style: none; padding: 0; display: grid; gap: .7rem;
  grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); }
.verdicts li { display: flex; gap: .8rem; padding: .8rem 1rem; background: var(--card);
  border-radius: 6px; } .verdicts div { color: var(--text); }
.mark { flex: none; font-weight: 700; font-size: 1.2rem; width: 1.2rem; text-align: center; }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; }
.tiles div { flex: 1 1 150px; padding: .7rem 1rem; border: 1px solid var(--line);
  border-radius: 6px; }
.tiles span { display: block; color: var(--soft); font-size: .85rem; }
.tiles b { font-size: 1.15rem; white-space: nowrap; }
figure { margin: 0; } figure img { width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: 6px; padding: .6rem; }
figcaption, .note { color: var(--soft); font-size: .92rem; margin: .4rem 0 0; }
table { border-collapse: collapse; min-width: 50%; }
th, td { text-align: left; padding: .3rem 1.4rem .3rem 0; border-bottom: 1px solid var(--line); }
.numbers th:not(:first-child), .numbers td:not(:first-child) { text-align: right;
  font-variant-numeric: tabular-nums; }
.pairs td:first-child { color: var(--soft); }
.pairs td { overflow-wrap: anywhere; }
pre { background: var(--card); padding: 1rem; border-radius: 6px; overflow-x: auto; }
@media (max-width: 520px) { .verdicts { grid-template-columns: 1fr; } }
"""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>gencg: {title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>
<body><header><h1>{title}</h1><p>{subtitle}</p></header>
{body}
</body></html>
"""
