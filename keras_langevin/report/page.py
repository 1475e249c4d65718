"""A report as one HTML file: no scripts, no other files, figures embedded."""

import base64
import html
import io

from keras_langevin.report.ranges import MARK

CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff;
       max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
.about { color: #555; margin-top: 0; }
.finding { border-left: .4rem solid; padding: .5rem .9rem; margin: .6rem 0; background: #f7f7f7; }
.finding p { margin: .2rem 0; }
.finding .title { font-weight: 600; }
.problem { border-color: #b3261e; } .warning { border-color: #d98e04; }
.good { border-color: #0f7b4f; } .note { border-color: #0072b2; }
.level { font-size: .75rem; letter-spacing: .06em; text-transform: uppercase; color: #555; }
table { border-collapse: collapse; width: 100%; }
td.label { width: 17rem; } td.value { width: 8rem; }
td { padding: .3rem .6rem; border-bottom: 1px solid #e4e4e4; vertical-align: top; }
td.value { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums;
           font-weight: 600; }
td.meaning { color: #555; }
tr.marked td.value { color: #b3261e; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figure img { width: 100%; height: auto; }
"""


def page(report):
    """The whole file as a string."""
    title = html.escape(report.title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        f"{body(report)}\n</body>\n</html>\n"
    )


def body(report):
    parts = [f"<h1>{html.escape(report.title)}</h1>"]
    parts.append(f'<p class="about">{html.escape(report.about)}</p>')
    parts += map(_finding, report.findings)
    marked = report.marked
    for title, rows in report.sections.items():
        parts.append(f"<h2>{html.escape(title)}</h2>\n<table>")
        parts += [_row(row, row.name in marked) for row in rows if row.label]
        parts.append("</table>")
    figures = report.draw()
    if figures:
        parts.append('<h2>Figures</h2>\n<div class="figures">')
        parts += [_figure(caption, figure) for caption, figure in figures]
        parts.append("</div>")
    return "\n".join(parts)


def _finding(finding):
    advice = f"<p>→ {html.escape(finding.advice)}</p>" if finding.advice else ""
    return (
        f'<div class="finding {finding.level}"><span class="level">{finding.level}</span>'
        f'<p class="title">{html.escape(finding.title)}</p>'
        f"<p>{html.escape(finding.text)}</p>{advice}</div>"
    )


def _row(row, is_marked):
    value = f"{MARK} {row.text}" if is_marked else row.text
    cells = zip(("label", "value", "meaning"), (row.label, value, row.meaning), strict=True)
    tag = '<tr class="marked">' if is_marked else "<tr>"
    return tag + "".join(f'<td class="{k}">{html.escape(t)}</td>' for k, t in cells) + "</tr>"


def _figure(caption, figure):
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=160)
    data = base64.b64encode(file.getvalue()).decode()
    text = html.escape(caption, quote=True)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"></figure>'
