"""Pages, tables and plots made from numbers."""
