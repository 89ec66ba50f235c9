"""The web application: a run behind an HTTP interface, and a page for people."""
