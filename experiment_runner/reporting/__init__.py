"""Numbers to pages, tables and figures."""
