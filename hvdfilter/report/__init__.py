"""From run folders to a table, figures and one HTML page; reads runs, never writes to them."""
