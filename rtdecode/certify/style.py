"""How the page looks: one sheet, for light and dark, with nothing from elsewhere."""

CSS = """
:root{--ink:#1d2733;--dim:#667282;--line:#e3e7ec;--ground:#f5f6f8;--paper:#fff;--pass:#1f8a4c;--fail:#c23434;
--inconclusive:#b07a12;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--dim:#98a3b1;--line:#313945;--ground:#14181e;--paper:#1d232b;
--pass:#43b878;--fail:#ec6a6a;--inconclusive:#e0ad4b}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 20px 60px}
header{display:flex;gap:22px;align-items:center;background:var(--paper);border:1px solid var(--line);
border-left:8px solid var(--dim);border-radius:10px;padding:20px 24px}
header.pass{border-left-color:var(--pass)}header.fail{border-left-color:var(--fail)}
header.inconclusive{border-left-color:var(--inconclusive)}
header p{margin:4px 0 0;color:var(--dim)}
.verdict{font-weight:750;font-size:30px;letter-spacing:.02em}
.pass .verdict,.badge.pass{color:var(--pass)}.fail .verdict,.badge.fail{color:var(--fail)}
.inconclusive .verdict,.badge.inconclusive{color:var(--inconclusive)}
h1{font-size:19px;margin:0}h2{font-size:18px;margin:0 0 6px}h3{font-size:15px;margin:20px 0 6px}
.badge{font-size:12px;border:1px solid currentColor;border-radius:20px;padding:1px 9px;vertical-align:2px}
section{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:20px 24px;margin-top:18px}
.reasons{margin:14px 0 0;padding-left:22px}.partial{color:var(--inconclusive);font-weight:600;margin:14px 0 0}
.rule,.dim{color:var(--dim);font-size:13px}.rule{margin:12px 4px 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin:12px 0}
.card{border:1px solid var(--line);border-radius:8px;padding:10px 14px}
.card .label{font-size:12.5px;color:var(--dim)}.card .value{font-size:22px;font-weight:650}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:13.5px}
th,td{padding:5px 9px;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th:first-child{text-align:left;font-weight:450}thead th{color:var(--dim);font-weight:500}
tr.whole th,tr.whole td{font-weight:650}
td small{display:block;color:var(--dim);font-weight:400;font-size:11px}
td.weak{color:var(--dim);font-weight:400}
table.plain td{text-align:left}table.narrow{width:auto;min-width:380px;margin-top:10px}
details{margin-top:12px}summary{cursor:pointer;color:var(--dim)}
pre{overflow:auto;font-size:12px;max-height:560px}
img{width:100%;border-radius:6px;background:#fff;display:block}
.advice{padding-left:20px;margin:8px 0 0}.advice li{margin-bottom:12px}
.change{font-weight:600}.gain{color:var(--pass);font-size:13.5px}
"""
