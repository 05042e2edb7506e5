"""From numbers to evidence: statistics, tables, figures, checklist, pitfalls and the page that shows them."""
