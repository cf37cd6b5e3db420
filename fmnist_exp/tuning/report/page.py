"""The page of a study: one HTML file that holds its figures and Plotly's script, and needs no network.

Both are compressed in the page, because Plotly's script alone has almost 5 MB, and each study logs a page.
"""

import base64
import gzip
import html
import json
from collections.abc import Mapping, Sequence

from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from fmnist_exp.registry.rendering import content_security_policy

STYLE = "body { font-family: sans-serif; margin: 1.5rem; max-width: 75rem }"
# Plotly adds an empty style element and fills it through the DOM, which a policy allows. It also adds a style sheet
# for maps unless the page has an element with this id; the page has no maps.
MAP_STYLE = "9f215cf04c5486422605d13261cb87401f4e7763b6296af81e98efbc0130da53"
# A script whose text is set through the DOM runs only if the policy names its digest, as Plotly's does.
# Without `showSendToCloud: false`, Plotly offers a button that uploads the figure to a server of its makers.
DRAW = """const options = {responsive: true, displaylogo: false, showSendToCloud: false, typesetMath: false};
const unpack = id => {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), one => one.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
};
(async () => {
  const [plotly, figures] = await Promise.all([unpack("plotly"), unpack("figures")]);
  document.head.append(Object.assign(document.createElement("script"), {textContent: plotly}));
  for (const [id, figure] of Object.entries(JSON.parse(figures)))
    await Plotly.newPlot(id, figure.data, figure.layout, options);
  document.body.dataset.drawn = "true";
})();"""


def render(title: str, lead: str, figures: Mapping[str, Figure], notes: Sequence[str] = ()) -> str:
    """Return the page as HTML: the paragraph `lead`, the figures, and a paragraph per note.

    Each figure is drawn in an element whose id is its key in `figures`.

    The figures are data for a script that is the same on every page. The policy of the page can therefore name its
    scripts and styles by their digests, and a script from anywhere else does not run.
    """
    plotly = get_plotlyjs()
    policy = content_security_policy(scripts=(plotly, DRAW), styles=(STYLE, ""))
    content = json.dumps({name: json.loads(figure.to_json()) for name, figure in figures.items()})
    parts = [
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">',
        f"<title>{html.escape(title)}</title>",
        f'<style>{STYLE}</style><style id="{MAP_STYLE}"></style>',
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(lead)}</p>",
        *(f'<div id="{html.escape(name)}"></div>' for name in figures),
        *(f"<p>{html.escape(note)}</p>" for note in notes),
        *(
            f'<script id="{name}" type="application/gzip;base64">{_packed(text)}</script>'
            for name, text in (("plotly", plotly), ("figures", content))
        ),
        f"<script>{DRAW}</script>\n",
    ]
    return "\n".join(parts)


def _packed(text: str) -> str:
    """Return a text, compressed, in letters and digits that cannot end the element that holds them."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")
