"""The tables and figures of a study, drawn by matplotlib and Plotly from one set of prepared points."""
