"""The chapters of a report: what each says, as text, tables and figures."""
