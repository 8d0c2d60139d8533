"""Setting a report as HTML, Markdown, LaTeX or CSV."""
