"""The tables and figures of a study, drawn by matplotlib and Plotly from one set of prepared points.

Figures of a single run, a comparison or a robustness test belong in `figures`.
"""
