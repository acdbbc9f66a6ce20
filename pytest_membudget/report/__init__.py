"""Show: what the records carry, on a terminal, as Markdown, JSON or one HTML page.

1. `page` turns a report into a headline, failures and tables of finished text; `comparisons` and `history` do the same for
   two sides and for many runs;
2. one file a format lays that out: `terminal`, `markdown` (and what CI services show), `html`; JSON is the records themselves;
3. `writing` picks the format by a path's ending, checks that path early, reads reports back, and has the JSON schema.

Renderers compute nothing, and text from outside is escaped where it is shown.
"""
